// What the memory found for one task, and what became of it. Touches no lock and no disk; the HTTP thread makes it, the
// loop uses it, and any thread may read its outcome.
#pragma once

#include "atlas-memory.hpp"

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

namespace atlas {

// How the prompt of a task fared with the memory. The order is that of RESTORE_RESULT_NAMES.
enum class restore_result {
    restored, // its state was put back from a tier
    slot_has_it, // the slot itself still held as much
    no_match, // no tier has the beginning of the prompt
    below_break_even, // computing takes no longer than restoring
    not_wanted, // cache_prompt is false
    media, // the prompt holds images or sound
    no_room, // the KV cache has not enough free cells
    failed, // the state could not be put back; the slot was emptied
    too_many_at_once, // leases of requests that wait for a slot left no room to read it, for as long as it could wait
};

constexpr const char * RESTORE_RESULT_NAMES[] = {
    "restored",          "slot_has_it", "no_match",       "below_break_even", "cache_prompt_off",
    "unsupported_media", "no_room",     "restore_failed", "too_many_at_once",
};

constexpr size_t N_TIERS = MAX_TIER; // of the memory: RAM, the disk, what servers share, and what plugins bring

constexpr size_t N_RESTORE_RESULTS = sizeof(RESTORE_RESULT_NAMES) / sizeof(RESTORE_RESULT_NAMES[0]);

struct restore_outcome {
    restore_result result     = restore_result::no_match;
    int            tier       = 0; // the tier that the state was restored from; 0: none
    double         restore_ms = 0;
};

// All members but the outcome belong to the HTTP thread until the task is posted, then to the loop until it sends the last
// result. The loop drops the match once it has used it, which ends the leases.
struct lookup_result {
    memory_access  access;
    std::string    tenant; // empty: none
    std::string    lineage; // under which it was looked up
    memory_match   match;
    memory_match   draft; // the state of what drafts tokens, for as many tokens or fewer
    restore_result result = restore_result::no_match; // of the lookup; the loop only reads it

    // Whether the loop is to leave the tokens of the answer here, before it sends the last result.
    bool                 wants_answer = false;
    std::vector<int32_t> answer_tokens;

    // What was found for the next sequence with the same prompt, where that sequence has a task of its own.
    std::shared_ptr<lookup_result> next_choice;

    // The loop, once: what happened when the task was launched.
    void set_outcome(const restore_outcome & how) {
        final_outcome = how;
        has_outcome.store(true, std::memory_order_release);
    }

    // Any thread, at any time, since a client that leaves does not wait for the loop. Before the launch it is what the
    // lookup said.
    restore_outcome outcome() const {
        return has_outcome.load(std::memory_order_acquire) ? final_outcome : restore_outcome{result, 0, 0};
    }

  private:
    restore_outcome   final_outcome;
    std::atomic<bool> has_outcome{false};
};

} // namespace atlas
