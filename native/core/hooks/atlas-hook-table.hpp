// Which plugins have a say in requests, and which bring tiers of the memory: what Python tells at its start and after each reload, and what is counted of it.
// Touches atomics only.
#pragma once

#include "atlas-abi.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace atlas {

// Where a plugin may have a say. The numbers are those of atlas-abi.h.
enum class hook : uint8_t {
    request      = ATLAS_HOOK_REQUEST,
    prompt       = ATLAS_HOOK_PROMPT,
    response     = ATLAS_HOOK_RESPONSE,
    stream_chunk = ATLAS_HOOK_STREAM_CHUNK,
    finished     = ATLAS_HOOK_FINISHED,
    failed       = ATLAS_HOOK_FAILED,
    authenticate = ATLAS_HOOK_AUTHENTICATE,
    tier         = ATLAS_HOOK_TIER, // in a table of its own
};

constexpr const char * HOOK_NAMES[] = {"on_request",  "on_prompt", "on_response",  "on_stream_chunk",
                                       "on_finished", "on_failed", "authenticate", "tier"};

constexpr size_t N_HOOKS = sizeof(HOOK_NAMES) / sizeof(HOOK_NAMES[0]);

inline const char * name_of(hook what) { return HOOK_NAMES[static_cast<size_t>(what)]; }

// What one hook of one plugin did since the server's start, as far as it can be seen from outside Python. Any thread.
struct hook_tally {
    using clock = std::chrono::steady_clock;

    std::atomic<uint64_t> timeouts{0}; // it was over its deadline
    std::atomic<uint64_t> unserved{0}; // Python did not begin in time: all workers were busy, or the GIL was held
    std::atomic<uint64_t> late{0}; // answers that nobody waited for any more
    std::atomic<int64_t>  ns{0}; // that requests waited for it
    std::atomic<bool>     is_off{false};

    // Counts a deadline that was missed by a call that began then. Calls that were under way when the one before was
    // counted are no further sign of anything: whatever held up the one held up the others. Returns how many were missed
    // in a row.
    int  miss(clock::time_point began, clock::time_point now);
    void keep() { in_a_row = 0; }

    // Returns whether it was off.
    bool turn_on() {
        in_a_row = 0;
        return is_off.exchange(false);
    }

  private:
    std::atomic<int>               in_a_row{0};
    std::atomic<clock::time_point> last_miss{clock::time_point::min()};
};

// A hook of a plugin, as a plugin declares it.
struct hook_implementation {
    std::string                 plugin;
    std::chrono::milliseconds   deadline{0};
    bool                        fails_closed = false; // without its answer the request is refused
    bool                        reads_body   = true; // it wants to see what is decided about
    int                         batch        = 1; // pieces of a streamed answer that it wants at once
    std::string                 tier         = {}; // the name of a tier; empty: it is a hook
    int                         tier_number  = 0;
    std::shared_ptr<hook_tally> tally; // the same for a plugin's hook, or tier, in all tables
};

// Immutable once it is in use. Requests that are under way when another takes its place go on with theirs.
struct hook_table {
    uint64_t                                              number = 0; // Python's, by which it finds the functions
    std::array<std::vector<hook_implementation>, N_HOOKS> by_hook; // in the order in which they are asked

    const std::vector<hook_implementation> & of(hook what) const { return by_hook[static_cast<size_t>(what)]; }

    bool reads_body(hook what) const {
        return std::any_of(of(what).begin(), of(what).end(), [](const auto & each) { return each.reads_body; });
    }

    // Whether a request may come to more than one call, so that plugins may keep something from one to the next.
    bool keeps_state() const {
        const auto has = [](const auto & of_hook) { return !of_hook.empty(); };
        return !of(hook::stream_chunk).empty() || std::count_if(by_hook.begin(), by_hook.end(), has) > 1;
    }
};

} // namespace atlas
