#include "cases.hpp"
#include "metrics-export.hpp"

#include <nlohmann/json.hpp>

#include <chrono>
#include <cmath>
#include <map>
#include <memory>
#include <set>
#include <string>

using namespace std::chrono_literals;
using atlas::hook;
using atlas::hook_tally;
using atlas::metrics;
using atlas::metrics_facts;
using nlohmann::json;

static json exported(const metrics & numbers, const atlas::metrics_facts & facts) {
    return json::parse(atlas::families_json(atlas::metrics_families(numbers, facts))).at("families");
}

static const json & family(const json & families, const std::string & name) {
    for (const auto & each : families) {
        if (each.at("name") == name) {
            return each;
        }
    }
    CHECK(!"there is no such family");
    std::abort();
}

static bool ends_with_total(const std::string & name) {
    return name.size() > 6 && name.compare(name.size() - 6, 6, "_total") == 0;
}

CASE(metrics_export_is_what_prometheus_takes) {
    metrics               numbers(true);
    metrics_facts         facts;
    std::set<std::string> names;
    facts.hooks               = {{"plugin", hook::request, std::make_shared<hook_tally>()}};
    facts.memory.shared.is_on = true;
    facts.tiers               = {{}};
    for (const auto & each : exported(numbers, facts)) {
        const auto name = each.at("name").get<std::string>();
        CHECK(name.find_first_not_of("abcdefghijklmnopqrstuvwxyz_") == std::string::npos);
        CHECK(name.rfind("atlas_", 0) == 0);
        CHECK(names.insert(name).second);
        CHECK(ends_with_total(name) == (each.at("type") == "counter"));
        CHECK(!each.at("help").get<std::string>().empty());
        std::set<std::string> labels;
        for (const auto & sample : each.at("samples")) {
            CHECK(labels.insert(sample.at("labels").dump()).second);
            CHECK(sample.contains("value") != (each.at("type") == "histogram"));
        }
        CHECK(!labels.empty());
    }
    CHECK(names.size() == 82);
}

CASE(metrics_export_of_histograms_is_cumulative) {
    metrics numbers(true);
    for (const auto duration : std::initializer_list<std::chrono::nanoseconds>{1ns, 10ms, 10ms, 20s, 2h}) {
        numbers.values.record(metrics::FIRST_TOKEN, duration);
    }
    const json sample = family(exported(numbers, {}), "atlas_time_to_first_token_seconds").at("samples").at(0);
    CHECK(sample.at("count") == 5);
    CHECK(std::abs(sample.at("sum").get<double>() - 7220.020000001) < 1e-6);
    double   bound = 0;
    uint64_t count = 0;
    for (const auto & bucket : sample.at("buckets")) {
        if (bucket.at(0).is_null()) {
            CHECK(bucket == sample.at("buckets").back());
        } else {
            CHECK(bucket.at(0) > bound);
            bound = bucket.at(0);
        }
        CHECK(bucket.at(1) >= count);
        count                   = bucket.at(1);
        const uint64_t expected = bucket.at(0).is_null() ? 5 : bound < 0.01 ? 1 : bound < 20 ? 3 : 4;
        CHECK(count == expected);
    }
}

CASE(metrics_export_shows_facts) {
    metrics              numbers(true);
    atlas::metrics_facts facts;
    facts.model            = "a \"model\"";
    facts.server_version   = "b1";
    facts.memory.ram_bytes = 7;
    facts.disk_bytes       = 9;
    facts.pool.pool_size   = 4;
    facts.restores[0][2]   = 3;
    facts.restores[1][0]   = 5;
    facts.pool.leases      = 6;
    facts.late             = {2, 1};

    facts.memory.evictions_disk[2][1] = 8;
    const json families               = exported(numbers, facts);
    const auto value_of               = [&](const char * name, const std::map<std::string, std::string> & labels) {
        for (const auto & sample : family(families, name).at("samples")) {
            if (sample.at("labels") == json(labels)) {
                return sample.at("value").get<double>();
            }
        }
        return -1.0;
    };
    CHECK(value_of("atlas_layer_bytes", {{"layer", "ram"}}) == 7);
    CHECK(value_of("atlas_layer_budget_bytes", {{"layer", "disk"}}) == 9);
    CHECK(value_of("atlas_pool_contexts", {}) == 4);
    CHECK(value_of("atlas_restores_total", {{"result", "restored"}, {"layer", "disk"}}) == 3);
    CHECK(value_of("atlas_restores_total", {{"result", "slot_has_it"}, {"layer", "none"}}) == 5);
    CHECK(value_of("atlas_pool_leases_total", {}) == 6);
    CHECK(value_of("atlas_evictions_total", {{"layer", "disk"}, {"strategy", "adaptive"}, {"reason", "orphan"}}) == 8);
    CHECK(family(families, "atlas_evictions_total").at("samples").size() == 2 * 3 * 6);
    CHECK(value_of("atlas_python_late_total", {{"for", "metrics"}}) == 2);
    CHECK(value_of("atlas_python_late_total", {{"for", "status"}}) == 1);
    CHECK(value_of("atlas_process_resident_bytes", {}) > 0);
    const json build = family(families, "atlas_build_info").at("samples").at(0).at("labels");
    CHECK(build.at("model") == "a \"model\"" && build.at("server_version") == "b1");
    CHECK(build.at("version").get<std::string>().find('.') != std::string::npos);
}
