#include "tier-listing.hpp"

#include "family-list.hpp"

#include <algorithm>

namespace atlas {

using json = nlohmann::ordered_json;

static std::optional<uint64_t> limit_of(uint64_t bytes) {
    return bytes < UNLIMITED_BYTES ? std::optional(bytes) : std::nullopt;
}

static std::optional<double> measured(double value) { return value > 0 ? std::optional(value) : std::nullopt; }

static listed_tier ram_of(const memory_stats & stats, const memory_options & options) {
    listed_tier tier;
    tier.number = 1;
    tier.label = tier.name = tier.kind = "ram";
    tier.entries                       = stats.ram_entries;
    tier.bytes                         = stats.ram_bytes;
    tier.budget                        = limit_of(options.ram_bytes);
    tier.asked                         = stats.used_in_ram + stats.used_on_disk;
    tier.found                         = stats.used_in_ram;
    tier.reads                         = stats.used_in_ram;
    tier.read_bytes                    = stats.used_in_ram_bytes;
    tier.writes                        = stats.kept_entries;
    tier.written_bytes                 = stats.kept_bytes;
    tier.drops                         = stats.ram_drops;
    return tier;
}

static listed_tier disk_of(const memory_stats & stats, const memory_options & options) {
    listed_tier tier;
    tier.number = 2;
    tier.label = tier.name = tier.kind = "disk";
    tier.address                       = options.path;
    tier.entries                       = stats.disk_entries;
    tier.bytes                         = stats.disk_bytes;
    tier.budget                        = limit_of(options.disk_bytes);
    tier.asked                         = stats.used_on_disk + stats.read_failures;
    tier.found                         = stats.used_on_disk;
    tier.reads                         = stats.read_entries;
    tier.read_bytes                    = stats.read_bytes;
    tier.writes                        = stats.written_entries;
    tier.written_bytes                 = stats.written_bytes;
    tier.read_failures                 = stats.read_failures;
    tier.write_failures                = stats.write_failures;
    tier.damaged                       = stats.bad_checksum;
    tier.drops                         = stats.write_drops;
    tier.queue_entries                 = stats.pending_entries;
    tier.queue_bytes                   = stats.pending_bytes;
    tier.bytes_per_s                   = measured(stats.disk_bytes_per_s);
    tier.problem                       = stats.disk_problem;
    tier.retry_s                       = stats.disk_retry_s;
    return tier;
}

static listed_tier linked_of(const shared_stats & stats, const std::vector<plugin_tiers::named> & plugins) {
    listed_tier tier;
    tier.number  = stats.number;
    tier.label   = stats.number == SHARED_TIER ? "shared" : std::to_string(stats.number);
    tier.name    = tier.label;
    tier.kind    = stats.kind;
    tier.address = stats.address;
    for (const auto & each : plugins) {
        if (each.number == stats.number) {
            tier.name    = each.tier;
            tier.address = "plugin '" + each.plugin + "'";
        }
    }
    tier.entries        = stats.entries;
    tier.bytes          = stats.bytes;
    tier.asked          = stats.asked;
    tier.found          = stats.found;
    tier.reads          = stats.read_entries;
    tier.read_bytes     = stats.read_bytes;
    tier.writes         = stats.written_entries;
    tier.written_bytes  = stats.written_bytes;
    tier.read_failures  = stats.read_failures;
    tier.write_failures = stats.write_failures;
    tier.timeouts       = stats.timeouts;
    tier.damaged        = stats.damaged;
    tier.drops          = stats.drops;
    tier.queue_entries  = stats.queue_entries;
    tier.queue_bytes    = stats.queue_bytes;
    tier.round_trip_s   = measured(stats.round_trip_s);
    tier.bytes_per_s    = measured(stats.bytes_per_s);
    tier.problem        = stats.problem;
    tier.retry_s        = stats.retry_s;
    return tier;
}

std::vector<listed_tier> list_tiers(const memory_stats & stats, const memory_options & options,
                                    const std::vector<plugin_tiers::named> &  plugins,
                                    const std::array<uint64_t, N_TIERS + 1> & restored) {
    std::vector<listed_tier> tiers = {ram_of(stats, options)};
    if (!options.path.empty()) {
        tiers.push_back(disk_of(stats, options));
    }
    for (const shared_stats & each : stats.linked) {
        tiers.push_back(linked_of(each, plugins));
    }
    for (listed_tier & tier : tiers) {
        tier.restored = restored.at((size_t) tier.number);
    }
    return tiers;
}

template <typename T> static json known(const std::optional<T> & value) { return value ? json(*value) : json(); }

json tiers_json(const std::vector<listed_tier> & tiers) {
    json all = json::array();
    for (const listed_tier & tier : tiers) {
        all.push_back({
            {"layer", tier.number},
            {"name", tier.name},
            {"kind", tier.kind},
            {"address", tier.address.empty() ? json() : json(tier.address)},
            {"entries", known(tier.entries)},
            {"bytes", known(tier.bytes)},
            {"budget", known(tier.budget)},
            {"restored", tier.restored},
            {"asked", tier.asked},
            {"found", tier.found},
            {"read", {{"entries", tier.reads}, {"bytes", tier.read_bytes}, {"failures", tier.read_failures}}},
            {"written",
             {{"entries", tier.writes},
              {"bytes", tier.written_bytes},
              {"failures", tier.write_failures},
              {"drops", tier.drops}}},
            {"timeouts", tier.timeouts},
            {"damaged", tier.damaged},
            {"queue", {{"entries", tier.queue_entries}, {"bytes", tier.queue_bytes}}},
            {"round_trip_ms", tier.round_trip_s ? json(*tier.round_trip_s * 1000) : json()},
            {"bytes_per_s", known(tier.bytes_per_s)},
            {"breaker", tier.problem.empty() ? "closed" : "open"},
            {"problem", tier.problem.empty() ? json() : json(tier.problem)},
            {"retry_s", tier.problem.empty() ? json() : json(tier.retry_s)},
        });
    }
    return all;
}

void add_tier_families(family_list & to, const std::vector<listed_tier> & tiers) {
    const auto each = [&](const char * name, const char * type, const char * help, auto value) {
        to.begin(name, type, help);
        for (const listed_tier & tier : tiers) {
            to.add(value(tier), {{"layer", tier.label}});
        }
    };
    const auto two = [&](const char * name, const char * help, const char * label, const char * first, auto of_first,
                         const char * second, auto of_second) {
        to.begin(name, "counter", help);
        for (const listed_tier & tier : tiers) {
            to.add(of_first(tier), {{"layer", tier.label}, {label, first}});
            to.add(of_second(tier), {{"layer", tier.label}, {label, second}});
        }
    };
    using one = listed_tier;
    each("atlas_layer_up", "gauge", "1 where a layer works, 0 where it does not.",
         [](const one & of) { return of.problem.empty(); });
    two(
        "atlas_layer_asked_total", "Entries that a layer was asked for, by whether it had them.", "result", "found",
        [](const one & of) { return of.found; }, "missing",
        [](const one & of) { return of.asked - std::min(of.asked, of.found); });
    each("atlas_layer_reads_total", "counter", "Entries read from a layer.", [](const one & of) { return of.reads; });
    each("atlas_layer_read_bytes_total", "counter", "Bytes read from a layer.",
         [](const one & of) { return of.read_bytes; });
    each("atlas_layer_writes_total", "counter", "Entries written to a layer.",
         [](const one & of) { return of.writes; });
    each("atlas_layer_written_bytes_total", "counter", "Bytes written to a layer.",
         [](const one & of) { return of.written_bytes; });
    two(
        "atlas_layer_failures_total", "Failures of a layer, by what was to be done.", "direction", "read",
        [](const one & of) { return of.read_failures; }, "write", [](const one & of) { return of.write_failures; });
    each("atlas_layer_timeouts_total", "counter", "Requests that went on without a layer, as it took too long.",
         [](const one & of) { return of.timeouts; });
    each("atlas_layer_damaged_total", "counter", "Values of a layer found damaged, and removed.",
         [](const one & of) { return of.damaged; });
    each("atlas_layer_drops_total", "counter", "Entries not written to a layer, as there was no room.",
         [](const one & of) { return of.drops; });
    each("atlas_layer_queue_bytes", "gauge", "Bytes that wait to be written to a layer.",
         [](const one & of) { return of.queue_bytes; });
    each("atlas_layer_round_trip_seconds", "gauge", "What the last question to a layer took; 0: not known.",
         [](const one & of) { return of.round_trip_s.value_or(0); });
    each("atlas_layer_bytes_per_second", "gauge", "At what rate a layer was read lately; 0: not known.",
         [](const one & of) { return of.bytes_per_s.value_or(0); });
}

} // namespace atlas
