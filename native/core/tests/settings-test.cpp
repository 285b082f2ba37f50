#include "atlas-in-effect.hpp"
#include "atlas-log.hpp"
#include "atlas-settings.hpp"
#include "cases.hpp"

#include <nlohmann/json.hpp>

#include <atomic>
#include <cstring>
#include <map>
#include <vector>

using atlas::setting_origin;
using nlohmann::json;

static size_t index_of(const char * name) {
    const auto & table = atlas::settings::table();
    for (size_t i = 0; i < table.size(); i++) {
        if (std::strcmp(table[i].name, name) == 0) {
            return i;
        }
    }
    CHECK(!"there is no such setting");
    return 0;
}

static json row(const atlas::settings & settings, const char * name) {
    return json::parse(settings.to_json()).at(index_of(name));
}

static json change(atlas::settings & settings, const json & values) {
    return json::parse(settings.change(values.dump()));
}

// The problems of a change, by field; several of one field stand behind each other.
static std::map<std::string, std::string> problems(atlas::settings & settings, const std::string & text) {
    std::map<std::string, std::string> found;
    const json                         answer = json::parse(settings.change(text));
    CHECK(answer.size() == 1);
    for (const auto & problem : answer.at("problems")) {
        auto & message = found[problem.at("field")];
        message += (message.empty() ? "" : "; ") + problem.at("message").get<std::string>();
    }
    return found;
}

CASE(settings_change_takes_every_live_type) {
    atlas::settings settings;
    const json      values = {{"max_concurrent_atlas_requests", 8},
                              {"pool_timeout_ms", 0},
                              {"api_latency_budget_ms", 0.5},
                              {"log_level", "warn"},
                              {"verbose_logging", true}};
    CHECK(change(settings, values) == json({{"changed", values}}));
    const auto config = settings.values();
    CHECK(config->max_concurrent_atlas_requests == 8 && config->pool_timeout_ms == 0);
    CHECK(config->api_latency_budget_ms == 0.5 && config->verbose_logging);
    CHECK(config->log_level == atlas::LogLevel::WARN);
    for (const auto & [name, value] : values.items()) {
        const json shown = row(settings, name.c_str());
        CHECK(shown.at("value") == value && shown.at("origin") == "request" && shown.at("reload") == "live");
    }
    CHECK(row(settings, "max_sessions").at("origin") == "default");
    CHECK(change(settings, json::object()) == json({{"changed", json::object()}}));
}

CASE(settings_change_wins_over_every_other_origin) {
    atlas::settings settings;
    settings.set(index_of("max_sessions"), "5", setting_origin::flag);
    change(settings, {{"max_sessions", 6}});
    settings.set(index_of("max_sessions"), "7", setting_origin::flag);
    CHECK(settings.values()->max_sessions == 6);
}

CASE(settings_change_names_every_problem_and_changes_nothing) {
    atlas::settings settings;
    const auto      before = settings.to_json();
    const auto      found  = problems(settings, R"({
        "max_sessions": 5, "no_such_setting": 1, "max_concurrent_atlas_requests": 0, "pool_timeout_ms": "10",
        "api_latency_budget_ms": 0.0001, "verbose_logging": 1, "log_level": "loud", "max_state_bytes": 2048.0,
        "shutdown_timeout_s": null, "session_ttl_s": 1e12, "context_pool_size": 4, "plugins": ["a", 1],
        "plugins_dir": 3, "memory_save_path": "a\u0000b", "python_home": "there"
    })");

    const std::map<std::string, std::string> expected = {
        {"no_such_setting", "there is no such setting; GET /v1/atlas/config lists them"},
        {"max_concurrent_atlas_requests", "value must be between 1 and 1024"},
        {"pool_timeout_ms", "value must be a number"},
        {"api_latency_budget_ms", "value must be between 0.001 and 60000"},
        {"verbose_logging", "value must be true or false"},
        {"log_level", "'loud' is not allowed: give debug, info, warn or error"},
        {"max_state_bytes", "value must be a whole number"},
        {"shutdown_timeout_s", "value must be a number"},
        {"session_ttl_s", "value must be between 0 and 315360000"},
        {"context_pool_size", "needs a restart: give --atlas-context-pool-size or ATLAS_CONTEXT_POOL_SIZE when the "
                              "server is started"},
        {"plugins", "needs a restart: give --atlas-plugin or ATLAS_PLUGINS when the server is started; value must be "
                    "a list of strings"},
        {"plugins_dir", "needs a restart: give --atlas-plugins-dir or ATLAS_PLUGINS_DIR when the server is started; "
                        "value must be a string"},
        {"memory_save_path", "needs a restart: give --atlas-memory-path or ATLAS_MEMORY_PATH when the server is "
                             "started; a value with a zero byte is not allowed"},
        {"python_home", "needs a restart: give --atlas-python-home or ATLAS_PYTHON_HOME when the server is started"},
    };
    CHECK(found == expected);
    CHECK(settings.to_json() == before);
}

CASE(settings_change_wants_an_object) {
    atlas::settings settings;
    for (const char * text : {"", "[]", "1", "{", "{\"max_sessions\": 1e999}", "{\"max_sessions\": NaN}", "\xff"}) {
        CHECK(problems(settings, text).count("body"));
    }
    CHECK(problems(settings, "{\"max_sessions\": 18446744073709551615}").count("max_sessions"));
    CHECK(
        problems(settings, "{\"max_sessions\": " + std::string(100000, '[') + std::string(100000, ']') + "}").size() ==
        1);
}

CASE(settings_change_takes_effect_on_the_log) {
    static std::vector<std::string> logged;
    atlas::set_log_sink([](atlas::LogLevel, atlas::LogFormat, const std::string & text) { logged.push_back(text); });
    atlas::settings settings;
    const auto      log_after = [&](const json & values) {
        change(settings, values);
        logged.clear();
        atlas::log(atlas::LogLevel::DEBUG, "debug");
        atlas::log(atlas::LogLevel::WARN, "warn");
        return logged.size();
    };
    CHECK(log_after({{"log_level", "error"}}) == 0);
    CHECK(log_after({{"log_level", "warn"}}) == 1);
    CHECK(log_after({{"verbose_logging", true}}) == 2);
    CHECK(log_after({{"log_level", "error"}, {"verbose_logging", 1}}) == 2); // refused
    CHECK(log_after({{"verbose_logging", false}}) == 1);
}

CASE(settings_mark_secrets) {
    atlas::settings settings;
    settings.set(index_of("admin_key"), "geheim", setting_origin::environment);
    for (const auto & shown : json::parse(settings.to_json())) {
        const std::string name = shown.at("name");
        CHECK(shown.at("secret") == (name == "admin_key" || name == "shared_url" || name == "encryption_key_command"));
    }
    CHECK(row(settings, "admin_key").at("value") == "geheim");
    CHECK(row(settings, "admin_key").at("reload") == "restart");
}

CASE(settings_say_what_is_off_and_how_to_turn_it_on) {
    atlas::AtlasServerConfig config;
    const std::string        start =
        "memory persistence is off: start the server with --atlas-memory-path DIR or set ATLAS_MEMORY_PATH";
    CHECK(saving_off(config) == start && conversations_off(config) == start && metrics_off(config).empty());
    config.memory_save_path = "somewhere";
    CHECK(saving_off(config).empty() && conversations_off(config).empty());
    config.enable_auto_memory = false;
    CHECK(saving_off(config).empty());
    CHECK(conversations_off(config) ==
          "the memory of conversations is off: turn it on with --atlas-auto or ATLAS_AUTO");
    config.enable_memory_persistence = false;
    CHECK(saving_off(config) ==
          "memory persistence is off: turn it on with --atlas-memory-persistence or ATLAS_MEMORY_PERSISTENCE");
    CHECK(conversations_off(config) == saving_off(config));
    config.enable_metrics_collection = false;
    CHECK(metrics_off(config) == "metrics are not collected: turn that on with --atlas-metrics or ATLAS_METRICS");

    const json shown = json::parse(in_effect_json(config));
    CHECK(shown.at("saving_off") == saving_off(config) && shown.at("metrics_off") == metrics_off(config));
    CHECK(json::parse(in_effect_json(atlas::AtlasServerConfig())).at("metrics_off").is_null());
}

CASE(settings_verbose_stands_for_a_level) {
    atlas::AtlasServerConfig config;
    config.log_level = atlas::LogLevel::ERROR;
    CHECK(json::parse(in_effect_json(config)).at("log_level") == "error");
    config.verbose_logging = true;
    CHECK(json::parse(in_effect_json(config)).at("log_level") == "debug");
}

CASE(settings_copy_has_the_values_and_goes_its_own_way) {
    atlas::settings settings;
    change(settings, {{"max_sessions", 6}});
    atlas::settings copy(settings);
    CHECK(copy.to_json() == settings.to_json());
    change(copy, {{"max_sessions", 7}});
    CHECK(settings.values()->max_sessions == 6);
}

CASE(settings_readers_never_see_half_of_a_change) {
    atlas::settings          settings;
    std::atomic<bool>        done{false};
    std::vector<std::thread> writers, readers;
    change(settings, {{"max_sessions", 0}, {"session_ttl_s", 0}});
    for (int t = 0; t < 4; t++) {
        readers.emplace_back([&] {
            while (!done) {
                const auto config = settings.values();
                CHECK((double) config->max_sessions == config->session_ttl_s);
            }
        });
        // each writer also has a setting of its own, of which no other writer's change may take anything back
        writers.emplace_back([&, t] {
            const char * const OWN[] = {"key_requests_per_s", "key_tokens_per_min", "session_requests_per_s",
                                        "session_tokens_per_min"};
            for (int i = 1; i <= 300; i++) {
                change(settings, {{"max_sessions", i * 4 + t}, {"session_ttl_s", i * 4 + t}, {OWN[t], i}});
                CHECK(row(settings, OWN[t]).at("value") == i);
            }
        });
    }
    for (auto & writer : writers) {
        writer.join();
    }
    done = true;
    for (auto & reader : readers) {
        reader.join();
    }
}

CASE(a_list_that_is_given_twice_has_both) {
    atlas::settings settings;
    const size_t    plugins = index_of("plugins");
    settings.set(plugins, "from-environment", setting_origin::environment);
    settings.set(plugins, "audit", setting_origin::flag);
    CHECK(row(settings, "plugins").at("value") == json({"audit"}));
    settings.set(plugins, "guard,no:x", setting_origin::flag);
    CHECK(row(settings, "plugins").at("value") == json({"audit", "guard", "no:x"}));
    const size_t path = index_of("memory_save_path");
    settings.set(path, "a", setting_origin::flag);
    settings.set(path, "b", setting_origin::flag);
    CHECK(row(settings, "memory_save_path").at("value") == "b");
}
