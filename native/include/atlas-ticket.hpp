// What the memory found for one task, and what became of it.
#pragma once

#include "atlas-memory.hpp"

#include <memory>

namespace atlas {

// How the prompt of a task fared with the memory. The order is that of RESTORE_RESULT_NAMES.
enum class restore_result {
    restored,         // its state was put back from a layer
    slot_has_it,      // the slot itself still held as much
    no_match,         // no layer has the beginning of the prompt
    below_break_even, // computing takes no longer than restoring
    not_wanted,       // cache_prompt is false
    media,            // the prompt holds images or sound
    no_room,          // the KV cache has not enough free cells
    failed,           // the state could not be put back; the slot was emptied
};

constexpr const char * RESTORE_RESULT_NAMES[] = {
    "restored",         "slot_has_it",       "no_match", "below_break_even",
    "cache_prompt_off", "unsupported_media", "no_room",  "restore_failed",
};

constexpr size_t N_RESTORE_RESULTS = sizeof(RESTORE_RESULT_NAMES) / sizeof(RESTORE_RESULT_NAMES[0]);

// Filled by the HTTP thread before the task is posted, then by the loop while it launches the task, then read by the
// HTTP thread once there is a result; never by two threads at a time. The loop drops the match once it was used, which
// ends its leases.
struct memory_ticket {
    memory_access  access;
    std::string    tenant;     // empty: none
    memory_match   match;
    restore_result result     = restore_result::no_match;
    int            layer      = 0; // that the state was restored from; 0: none
    double         restore_ms = 0;

    std::shared_ptr<memory_ticket>
        next_choice; // of the next sequence with the same prompt, where it has one of its own
};

} // namespace atlas
