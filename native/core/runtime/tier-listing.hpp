// Every tier of the memory alike: what the status and the metrics say of it. Reads what it is given; any thread.
#pragma once

#include "atlas-lookup-result.hpp"
#include "atlas-memory.hpp"
#include "plugin-tiers.hpp"

#include <nlohmann/json.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace atlas {

class family_list;

// Where nothing is known, there is nothing. Counters since the start.
struct listed_tier {
    int         number = 0;
    std::string label; // in metrics: "ram", "disk", "shared", or the number
    std::string name; // of a plugin's: that of the plugin and its own
    std::string kind; // "ram", "disk", or the scheme of what servers share, or "plugin"
    std::string address;

    std::optional<uint64_t> entries, bytes, budget; // that it holds, and may hold
    uint64_t                restored = 0; // prompts that got state from here, and from nothing slower
    uint64_t                asked = 0, found = 0; // entries: of those that were asked for
    uint64_t                reads = 0, read_bytes = 0, writes = 0, written_bytes = 0;
    uint64_t                read_failures = 0, write_failures = 0, timeouts = 0, damaged = 0, drops = 0;
    uint64_t                queue_entries = 0, queue_bytes = 0; // waiting to be written
    std::optional<double>   round_trip_s, bytes_per_s; // of the last question; of reading, lately

    std::string problem; // why it does not work now; empty: it does
    double      retry_s = 0;
};

// restored: by tier.
std::vector<listed_tier> list_tiers(const memory_stats & stats, const memory_options & options,
                                    const std::vector<plugin_tiers::named> &  plugins,
                                    const std::array<uint64_t, N_TIERS + 1> & restored);

nlohmann::ordered_json tiers_json(const std::vector<listed_tier> & tiers);

void add_tier_families(family_list & to, const std::vector<listed_tier> & tiers);

} // namespace atlas
