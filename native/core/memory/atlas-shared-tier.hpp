// A tier of the memory beyond this machine: what servers share, tier 3, and what plugins bring. Its settings, and what it
// tells about itself.
#pragma once

#include "atlas-facts.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

namespace atlas {

class tier;

namespace memory {
class shared_codec;
}

constexpr int SHARED_TIER       = 3; // what servers share
constexpr int FIRST_PLUGIN_TIER = ATLAS_FIRST_PLUGIN_LAYER; // what plugins bring
constexpr int MAX_TIER          = ATLAS_MAX_LAYER;

constexpr size_t N_LINKED_TIERS = MAX_TIER - SHARED_TIER + 1; // that there may be beyond this machine's

// Which entries are sent to the tier.
enum class share_policy : uint8_t {
    all,
    reused, // those that are used a second time, and those of sessions
    none,
};

struct shared_options {
    std::shared_ptr<tier> place; // empty: there is no such tier

    std::shared_ptr<const memory::shared_codec> codec; // empty: the plain one

    share_policy write = share_policy::all;

    double   timeout_s = 2; // of all that a lookup asks of the tier
    double   ttl_s     = 604800; // that an entry stays after it was last used
    double   keep_s    = 3600; // so often the tier is told what was used here
    uint64_t queue_bytes =
        256ull << 20; // of entries that wait to be sent, in bytes of data and tokens; all tiers' together
};

// Counters since the start, and the present state.
struct shared_stats {
    bool        is_on  = false;
    int         number = 0;
    std::string kind; // its scheme
    std::string address; // without a password
    bool        is_tried = false; // it answered or failed since it was opened; before that nothing is asked of it
    std::string problem; // why it does not work now; empty: it does
    double      retry_s = 0; // when it is tried again, in seconds from now

    uint64_t lookups = 0; // that asked it for something
    uint64_t hits    = 0; // that got something
    uint64_t waited  = 0; // that waited for what another was fetching
    uint64_t asked = 0, found = 0; // entries: of those asked for, those that are there
    uint64_t read_entries = 0, read_bytes = 0;
    uint64_t timeouts         = 0; // lookups that went on without, as their time was over
    uint64_t below_break_even = 0; // lookups that asked for nothing more, as computing takes no longer
    uint64_t damaged          = 0; // values that are not what they should be; they are removed
    uint64_t read_failures = 0, write_failures = 0;
    uint64_t queue_entries = 0, queue_bytes = 0; // waiting to be sent
    uint64_t written_entries = 0, written_bytes = 0;
    uint64_t already_there = 0; // entries that need not be sent, as another server has
    uint64_t drops         = 0; // entries not sent, as the queue was full or they are too large
    uint64_t kept          = 0; // entries that were told to be in use
    double   round_trip_s  = 0; // of the last question; 0: none yet
    double   bytes_per_s   = 0; // of reading, lately; 0: not known

    std::optional<uint64_t> entries, bytes; // that it holds, where it tells
};

// What fetch() brought near.
struct fetch_result {
    size_t n_before    = 0; // tokens that could be rebuilt without
    size_t n_entries   = 0; // that are here now, fetched by this or by another request for which it waited
    int    tier        = 0; // the farthest from which any came; 0: none
    bool   is_too_slow = false; // there may be more, but computing takes no longer
};

} // namespace atlas
