// The table of what the server measures: docs/metrics.md describes it. Reads what it is given; any thread but the token
// loop.
#pragma once

#include "atlas-background.hpp"
#include "atlas-hook-calls.hpp"
#include "atlas-lookup-result.hpp"
#include "atlas-memory.hpp"
#include "atlas-metrics.hpp"
#include "atlas-slot-pool.hpp"
#include "metrics-formats.hpp"
#include "tier-listing.hpp"

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace atlas {

// Numbers that are not recorded, but read at each export.
struct metrics_facts {
    slot_pool_stats  pool;
    background_stats background;
    memory_stats     memory; // all 0 where there is none
    uint64_t         ram_bytes = 0, disk_bytes = 0, index_bytes = 0; // budgets
    uint64_t         budget_breaches = 0;
    double           uptime_s        = 0;
    std::string      server_version;
    std::string      model; // empty: none is loaded yet

    std::vector<listed_tier> tiers; // empty where there is no memory

    std::vector<hook_calls::counted> hooks; // on the path of requests, and tiers
    uint64_t                         untold = 0; // ends of requests that plugins were not told of

    std::array<uint64_t, N_PYTHON_PARTS> late = {}; // answers without Python's part

    std::array<std::array<uint64_t, N_TIERS + 1>, N_RESTORE_RESULTS> restores = {}; // by result and tier, 0: none
};

std::vector<metric_family> metrics_families(const metrics & recorded, const metrics_facts & facts);

} // namespace atlas
