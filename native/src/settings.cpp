#include "atlas-config.hpp"

#include <nlohmann/json.hpp>
#include <toml++/toml.h>

#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <sstream>
#include <stdexcept>

extern char ** environ;

namespace atlas {

namespace {

const char * type_name(const bool *) { return "bool"; }
const char * type_name(const int64_t *) { return "int"; }
const char * type_name(const double *) { return "float"; }
const char * type_name(const std::string *) { return "string"; }
const char * type_name(const string_list *) { return "list"; }
const char * type_name(const LogLevel *) { return "level"; }

const std::vector<std::pair<const char *, LogLevel>> LEVELS = {
    {"debug", LogLevel::DEBUG},
    {"info", LogLevel::INFO},
    {"warn", LogLevel::WARN},
    {"error", LogLevel::ERROR},
};

std::invalid_argument bad(const std::string & text, const std::string & allowed) {
    return std::invalid_argument("'" + text + "' is not allowed: " + allowed);
}

void check_range(double value, const std::string & text, const setting_info & info) {
    if ((info.min != 0 || info.max != 0) && !(value >= info.min && value <= info.max)) {
        std::ostringstream allowed;
        allowed.precision(15);
        allowed << "give a number from " << info.min << " to " << info.max;
        throw bad(text, allowed.str());
    }
}

void parse(bool & out, const std::string & text, const setting_info &) {
    for (const char * yes : {"1", "true", "on", "yes"}) {
        if (text == yes) {
            out = true;
            return;
        }
    }
    for (const char * no : {"0", "false", "off", "no"}) {
        if (text == no) {
            out = false;
            return;
        }
    }
    throw bad(text, "give 1 or 0 (true or false, on or off)");
}

void parse(int64_t & out, const std::string & text, const setting_info & info) {
    char * end            = nullptr;
    errno                 = 0;
    const long long value = std::strtoll(text.c_str(), &end, 10);
    if (text.empty() || *end != '\0' || errno != 0) {
        throw bad(text, "give a whole number");
    }
    check_range((double) value, text, info);
    out = value;
}

void parse(double & out, const std::string & text, const setting_info & info) {
    char *       end   = nullptr;
    const double value = std::strtod(text.c_str(), &end);
    if (text.empty() || *end != '\0' || !std::isfinite(value)) {
        throw bad(text, "give a number");
    }
    check_range(value, text, info);
    out = value;
}

void parse(std::string & out, const std::string & text, const setting_info &) {
    if (text.find('\0') != std::string::npos) {
        throw std::invalid_argument("a value with a zero byte is not allowed");
    }
    out = text;
}

void parse(string_list & out, const std::string & text, const setting_info & info) {
    out.clear();
    std::istringstream items(text);
    for (std::string item; std::getline(items, item, ',');) {
        if (!item.empty()) {
            std::string value;
            parse(value, item, info);
            out.push_back(value);
        }
    }
}

void parse(LogLevel & out, const std::string & text, const setting_info &) {
    for (const auto & [name, level] : LEVELS) {
        if (text == name) {
            out = level;
            return;
        }
    }
    throw bad(text, "give debug, info, warn or error");
}

template <typename T> nlohmann::json value_json(const T & value) { return value; }

nlohmann::json value_json(LogLevel value) {
    for (const auto & [name, level] : LEVELS) {
        if (level == value) {
            return name;
        }
    }
    return nullptr;
}

const char * origin_name(setting_origin origin) {
    switch (origin) {
        case setting_origin::file:        return "file";
        case setting_origin::environment: return "environment";
        case setting_origin::flag:        return "flag";
        default:                          return "default";
    }
}

// A TOML value as the text that the command line would give.
std::string toml_text(const toml::node & node) {
    if (const auto * array = node.as_array()) {
        std::string text;
        for (const auto & item : *array) {
            if (!item.is_string()) {
                throw std::invalid_argument("an array may hold strings only");
            }
            text += (text.empty() ? "" : ",") + item.ref<std::string>();
        }
        return text;
    }
    if (const auto value = node.value_exact<bool>()) {
        return *value ? "1" : "0";
    }
    if (const auto value = node.value_exact<int64_t>()) {
        return std::to_string(*value);
    }
    if (const auto value = node.value_exact<double>()) {
        std::ostringstream text;
        text.precision(17);
        text << *value;
        return text.str();
    }
    if (const auto value = node.value_exact<std::string>()) {
        return *value;
    }
    throw std::invalid_argument("a value must be a boolean, a number, a string or an array of strings");
}

} // namespace

settings::settings() : origins(table().size(), setting_origin::fallback) {}

const std::vector<setting_info> & settings::table() {
    static const std::vector<setting_info> rows = {
#define ATLAS_SETTING(name, type, default_value, flag, env, min, max, help)                                            \
    {#name, type_name((const type *) nullptr), "--atlas-" flag, "ATLAS_" env, (double) (min), (double) (max), help},
#include "atlas-settings.def"
#undef ATLAS_SETTING
    };
    return rows;
}

void settings::set(size_t index, const std::string & text, setting_origin origin) {
    if (origin < origins.at(index)) {
        return;
    }
    const auto & info = table()[index];
    size_t       i    = 0;
#define ATLAS_SETTING(name, type, default_value, flag, env, min, max, help)                                            \
    if (i++ == index) {                                                                                                \
        parse(config.name, text, info);                                                                                \
    }
#include "atlas-settings.def"
#undef ATLAS_SETTING
    origins[index] = origin;
}

std::vector<std::string> settings::read_environment() {
    std::vector<std::string> unknown;
    for (char ** entry = environ; *entry != nullptr; entry++) {
        const char * equals = std::strchr(*entry, '=');
        if (std::strncmp(*entry, "ATLAS_", 6) != 0 || equals == nullptr || equals[1] == '\0') {
            continue;
        }
        const std::string name(*entry, equals - *entry);
        bool              known = name == "ATLAS_CONFIG"; // read by whoever calls read_file
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
    for (const auto & [key, node] : document) {
        const std::string name(key.str());
        const std::string where = "ATLAS configuration file " + path + ", key '" + name + "': ";
        size_t            index = 0;
        while (index < table().size() && name != table()[index].name) {
            index++;
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
    auto                    rows = nlohmann::json::array();
#define ATLAS_SETTING(field, type_, default_value, flag_, env_, min_, max_, help_)                                     \
    {                                                                                                                  \
        const auto & info = table()[rows.size()];                                                                      \
        rows.push_back({                                                                                               \
            {"name", info.name},                                                                                       \
            {"type", info.type},                                                                                       \
            {"flag", info.flag},                                                                                       \
            {"env", info.env},                                                                                         \
            {"value", value_json(config.field)},                                                                       \
            {"default", value_json(defaults.field)},                                                                   \
            {"origin", origin_name(origins[rows.size()])},                                                             \
            {"secret", false},                                                                                         \
            {"help", info.help},                                                                                       \
        });                                                                                                            \
        if (info.min != 0 || info.max != 0) {                                                                          \
            rows.back()["min"] = info.min;                                                                             \
            rows.back()["max"] = info.max;                                                                             \
        }                                                                                                              \
    }
#include "atlas-settings.def"
#undef ATLAS_SETTING
    return rows.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

} // namespace atlas
