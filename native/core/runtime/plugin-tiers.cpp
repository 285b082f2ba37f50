#include "plugin-tiers.hpp"

#include "atlas-abi.h"
#include "atlas-facts.h"
#include "plugin-tier.hpp"
#include "query-arguments.hpp"

#include <nlohmann/json.hpp>

#include <set>
#include <system_error>
#include <utility>

namespace atlas {

using json = nlohmann::ordered_json;

void plugin_tiers::set_memory(memory_store & of, shared_options with) {
    store = &of;
    like  = std::move(with);
}

std::optional<std::string> plugin_tiers::answer(std::string_view argument) {
    const std::lock_guard<std::mutex> held(settling);
    std::set<int>                     gone, fresh, numbers;
    hook_table                        table;
    try {
        const json told = json::parse(argument);
        table.number    = (uint64_t) number_of(told, "number", 1, INT64_MAX);
        for (const auto & each : told.at("tiers")) {
            hook_implementation added;
            added.plugin      = each.at("plugin").get<std::string>();
            added.tier        = each.at("tier").get<std::string>();
            added.deadline    = std::chrono::milliseconds(number_of(each, "deadline_ms", 1, ATLAS_MAX_DEADLINE_MS));
            added.tier_number = (int) number_of(each, "layer", ATLAS_FIRST_PLUGIN_LAYER, ATLAS_MAX_LAYER);
            if (!numbers.insert(added.tier_number).second) {
                return std::nullopt;
            }
            if (each.at("is_new").get<bool>()) {
                fresh.insert(added.tier_number);
            }
            table.by_hook[(size_t) hook::tier].push_back(std::move(added));
        }
    } catch (const json::exception &) {
        return std::nullopt;
    } catch (const bad_argument &) {
        return std::nullopt;
    }
    for (const auto & before : all()) {
        if (numbers.count(before.number) == 0) {
            gone.insert(before.number);
        }
    }
    calls.set_table(std::move(table)); // calls that go on end with those from before
    for (const int number : store ? gone : std::set<int>()) {
        store->remove_tier(number);
    }
    for (const int number : store ? fresh : std::set<int>()) {
        auto with  = like;
        with.place = std::make_shared<plugin_tier>(calls, number);
        store->add_tier(number, with);
    }
    return json{{"is_used", store != nullptr}}.dump();
}

void plugin_tiers::try_again() {
    if (store) {
        store->try_tiers();
    }
}

std::vector<plugin_tiers::named> plugin_tiers::all() const {
    std::vector<named> names;
    for (const auto & each : calls.table()->of(hook::tier)) {
        names.push_back({each.tier_number, each.plugin, each.tier});
    }
    return names;
}

} // namespace atlas
