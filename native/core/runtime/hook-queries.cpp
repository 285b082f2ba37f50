#include "hook-queries.hpp"

#include "atlas-abi.h"
#include "query-arguments.hpp"

#include <nlohmann/json.hpp>

#include <utility>

namespace atlas {

using json = nlohmann::ordered_json;

static hook_table table_of(const json & argument) {
    hook_table table;
    table.number = (uint64_t) number_of(argument, "number", 1, INT64_MAX);
    for (const auto & each : argument.at("hooks")) {
        hook_implementation added;
        added.plugin       = each.at("plugin").get<std::string>();
        added.deadline     = std::chrono::milliseconds(number_of(each, "deadline_ms", 1, ATLAS_MAX_DEADLINE_MS));
        added.fails_closed = each.at("fails_closed").get<bool>();
        added.reads_body   = each.at("reads_body").get<bool>();
        added.batch        = (int) number_of(each, "batch", 1, ATLAS_MAX_BATCH);
        table.by_hook[(size_t) number_of(each, "hook", 0, ATLAS_HOOK_AUTHENTICATE)].push_back(std::move(added));
    }
    return table;
}

static json to_json(const hook_calls::counted & counted) {
    const auto & tally = *counted.tally;
    json         shown = {{"hook", name_of(counted.what)},     {"plugin", counted.plugin},
                          {"timeouts", tally.timeouts.load()}, {"unserved", tally.unserved.load()},
                          {"late", tally.late.load()},         {"seconds", (double) tally.ns.load() / 1e9},
                          {"is_off", tally.is_off.load()}};
    if (!counted.tier.empty()) {
        shown["tier"] = counted.tier;
    }
    return shown;
}

static std::string tallies_json(const hook_calls & hooks, const hook_calls & tiers) {
    json all = json::array();
    for (const hook_calls * calls : {&hooks, &tiers}) {
        for (const auto & each : calls->tallies()) {
            all.push_back(to_json(each));
        }
    }
    return all.dump();
}

std::optional<std::string> answer_hook_query(hook_calls & hooks, hook_calls & tiers, int32_t what,
                                             std::string_view argument) {
    try {
        if (what == ATLAS_QUERY_HOOKS_ENABLE) {
            const auto plugin  = json::parse(argument).at("plugin").get<std::string>();
            const bool was_off = hooks.turn_on(plugin);
            return json{{"was_off", tiers.turn_on(plugin) || was_off}}.dump();
        }
        if (what == ATLAS_QUERY_HOOK_TABLES) {
            auto       numbers = hooks.tables_in_use();
            const auto more    = tiers.tables_in_use();
            numbers.insert(numbers.end(), more.begin(), more.end());
            return json(numbers).dump();
        }
        if (argument.empty()) {
            return tallies_json(hooks, tiers);
        }
        hooks.set_table(table_of(json::parse(argument)));
        return "";
    } catch (const json::exception &) {
        return std::nullopt;
    } catch (const bad_argument &) {
        return std::nullopt;
    }
}

void apply_hook_limits(hook_calls & hooks, const AtlasServerConfig & config) {
    hooks.set_limits({(int) config.hook_breaches, (int) config.hook_workers});
}

} // namespace atlas
