#include "atlas-settings.hpp"

#include "atlas-in-effect.hpp"
#include "atlas-log.hpp"
#include "setting-values.hpp"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <sstream>
#include <stdexcept>

extern char ** environ;

namespace atlas {

using nlohmann::json;

namespace {

const char * origin_name(setting_origin origin) {
    switch (origin) {
        case setting_origin::file:        return "file";
        case setting_origin::environment: return "environment";
        case setting_origin::flag:        return "flag";
        case setting_origin::request:     return "request";
        default:                          return "default";
    }
}

// Calls use with the field that a row of the table stands for.
template <typename Config, typename F> void with_field(Config & config, size_t index, F use) {
    size_t i = 0;
#define ATLAS_SETTING(name, ...)                                                                                       \
    if (i++ == index) {                                                                                                \
        use(config.name);                                                                                              \
    }
#include "atlas-settings.def"
#undef ATLAS_SETTING
}

json field_json(const AtlasServerConfig & config, size_t index) {
    json shown;
    with_field(config, index, [&](const auto & value) { shown = value_json(value); });
    return shown;
}

// The index of a name; the size of the table when there is no such setting.
size_t index_of(const std::string & name) {
    const auto & table = settings::table();
    return std::find_if(table.begin(), table.end(), [&](const auto & row) { return name == row.name; }) - table.begin();
}

std::string text_of(const json & document) { return document.dump(-1, ' ', false, json::error_handler_t::replace); }

} // namespace

AtlasServerConfig AtlasServerConfig::from_environment() {
    settings taken;
    for (const auto & name : taken.read_environment()) {
        logf(LogLevel::WARN, "environment variable %s is not known and is ignored", name.c_str());
    }
    return *taken.values();
}

void apply_logging(const AtlasServerConfig & config) {
    set_log_level(least_logged(config));
    set_log_format(config.log_format);
}

settings::settings()
    : current(std::make_shared<state>(
          state{AtlasServerConfig(), std::vector<setting_origin>(table().size(), setting_origin::fallback)})) {}

settings::settings(const settings & other) : file(other.file), current(other.snapshot()) {}

const std::vector<setting_info> & settings::table() {
    constexpr int                          restart = 0, live = 1, secret = 2;
    static const std::vector<setting_info> rows = {
#define ATLAS_SETTING(name, type, default_value, flag, env, min, max, traits, help)                                    \
    {                                                                                                                  \
        #name,                                                                                                         \
        type_name((const type *) nullptr),                                                                             \
        "--atlas-" flag,                                                                                               \
        "ATLAS_" env,                                                                                                  \
        (double) (min),                                                                                                \
        (double) (max),                                                                                                \
        ((traits) & live) != 0,                                                                                        \
        ((traits) & secret) != 0,                                                                                      \
        help,                                                                                                          \
    },
#include "atlas-settings.def"
#undef ATLAS_SETTING
    };
    return rows;
}

std::shared_ptr<const settings::state> settings::snapshot() const {
    const std::lock_guard<std::mutex> lock(mutex);
    return current;
}

std::shared_ptr<const AtlasServerConfig> settings::values() const {
    const auto state = snapshot();
    return {state, &state->config};
}

void settings::set(size_t index, const std::string & text, setting_origin origin) {
    const std::lock_guard<std::mutex> lock(mutex);
    if (origin < current->origins.at(index)) {
        return;
    }
    auto       next     = std::make_shared<state>(*current);
    const bool is_again = origin == setting_origin::flag && current->origins[index] == origin;
    with_field(next->config, index, [&](auto & value) {
        if constexpr (std::is_same_v<std::decay_t<decltype(value)>, string_list>) {
            if (is_again) { // of several such flags none is lost
                string_list more;
                parse(more, text, table()[index]);
                value.insert(value.end(), more.begin(), more.end());
                return;
            }
        }
        parse(value, text, table()[index]);
    });
    next->origins[index] = origin;
    current              = std::move(next);
}

void settings::take(const AtlasServerConfig & config) {
    const std::lock_guard<std::mutex> lock(mutex);
    auto                              next     = std::make_shared<state>(*current);
    const AtlasServerConfig           fallback = {};
    for (size_t index = 0; index < table().size(); index++) {
        const json given = field_json(config, index);
        if (given == field_json(fallback, index)) {
            continue;
        }
        try {
            with_field(next->config, index, [&](auto & value) { parse(value, given, table()[index]); });
        } catch (const std::invalid_argument & problem) {
            throw std::invalid_argument(std::string(table()[index].name) + ": " + problem.what());
        }
        next->origins[index] = setting_origin::flag;
    }
    current = std::move(next);
}

std::string settings::change(const std::string & text) {
    auto       problems = json::array();
    const auto report   = [&](const std::string & field, const std::string & message) {
        problems.push_back({{"field", field}, {"message", message}});
    };
    const json document = json::parse(text, nullptr, false);
    if (!document.is_object()) {
        report("body", "must be a JSON object with the names and new values of settings");
        return text_of({{"problems", problems}});
    }
    const std::lock_guard<std::mutex> lock(mutex);

    auto next    = std::make_shared<state>(*current);
    auto changed = json::object();
    for (const auto & [name, given] : document.items()) {
        const size_t index = index_of(name);
        if (index == table().size()) {
            report(name, "there is no such setting; GET /v1/atlas/config lists them");
            continue;
        }
        const auto & info = table()[index];
        if (!info.is_live) {
            report(name, "needs a restart: give " + info.flag + " or " + info.env + " when the server is started");
        }
        try {
            with_field(next->config, index, [&, &value = given](auto & field) { parse(field, value, info); });
        } catch (const std::invalid_argument & e) {
            report(name, e.what());
        }
        next->origins[index] = setting_origin::request;
        changed[name]        = field_json(next->config, index);
    }
    if (!problems.empty()) {
        return text_of({{"problems", problems}});
    }
    apply_logging(next->config);
    current = std::move(next);
    return text_of({{"changed", changed}});
}

std::vector<std::string> settings::read_environment() {
    std::vector<std::string> unknown;
    for (char ** entry = environ; *entry != nullptr; entry++) {
        const char * equals = std::strchr(*entry, '=');
        if (std::strncmp(*entry, "ATLAS_", 6) != 0 || equals == nullptr || equals[1] == '\0') {
            continue;
        }
        const std::string name(*entry, equals - *entry);
        // no settings: one names the file for read_file(), the others are of plugins, which read them
        bool known = name == "ATLAS_CONFIG" || name.compare(0, 13, "ATLAS_PLUGIN_") == 0;
        for (size_t i = 0; i < table().size(); i++) {
            if (table()[i].env == name) {
                known = true;
                try {
                    set(i, equals + 1, setting_origin::environment);
                } catch (const std::invalid_argument & e) {
                    throw std::invalid_argument("environment variable " + name + ": " + e.what());
                }
            }
        }
        if (!known) {
            unknown.push_back(name);
        }
    }
    return unknown;
}

// [plugins.NAME] is what a plugin is told; it reads that itself.
static void check_plugin_tables(const toml::table & plugins, const std::string & where) {
    for (const auto & [name, node] : plugins) {
        if (!node.is_table()) {
            throw std::invalid_argument(
                where + "'" + std::string(name.str()) +
                "' is no table: [plugins.NAME] configures the plugin NAME, and plugins = [...] "
                "names those to load, which goes by --atlas-plugin where there are such tables");
        }
    }
}

void settings::read_file(const std::string & path) {
    std::error_code ignored;
    if (std::filesystem::is_directory(path, ignored)) {
        throw std::invalid_argument("ATLAS configuration file " + path + ": this is a directory; name a TOML file");
    }
    toml::table document;
    try {
        document = toml::parse_file(path);
    } catch (const toml::parse_error & e) {
        std::ostringstream message;
        message << "ATLAS configuration file " << path;
        if (e.source().begin.line > 0) {
            message << ", line " << e.source().begin.line;
        }
        message << ": " << e.description();
        throw std::invalid_argument(message.str());
    }
    file = std::filesystem::absolute(path, ignored).string();
    for (const auto & [key, node] : document) {
        const std::string name(key.str());
        const std::string where = "ATLAS configuration file " + path + ", key '" + name + "': ";
        const size_t      index = index_of(name);
        if (name == "plugins" && node.is_table()) {
            check_plugin_tables(*node.as_table(), where);
            continue;
        }
        if (index == table().size()) {
            throw std::invalid_argument(where + "there is no such setting; llama-server --help lists them");
        }
        try {
            set(index, toml_text(node), setting_origin::file);
        } catch (const std::invalid_argument & e) {
            throw std::invalid_argument(where + e.what());
        }
    }
}

std::string settings::to_json() const {
    const AtlasServerConfig defaults;
    const auto              state = snapshot();
    auto                    rows  = json::array();
    for (size_t i = 0; i < table().size(); i++) {
        const auto & info = table()[i];
        rows.push_back({
            {"name", info.name},
            {"type", info.type},
            {"flag", info.flag},
            {"env", info.env},
            {"value", field_json(state->config, i)},
            {"default", field_json(defaults, i)},
            {"origin", origin_name(state->origins[i])},
            {"reload", info.is_live ? "live" : "restart"},
            {"secret", info.is_secret},
            {"help", info.help},
        });
        if (has_range(info)) {
            rows.back()["min"] = info.min;
            rows.back()["max"] = info.max;
        }
    }
    return text_of(rows);
}

} // namespace atlas
