#include "setting-values.hpp"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <sstream>
#include <stdexcept>
#include <utility>
#include <vector>

namespace atlas {

using nlohmann::json;

bool has_range(const setting_info & info) { return info.min != 0 || info.max != 0; }

namespace {

template <typename T> using name_list = std::vector<std::pair<const char *, T>>;

const name_list<LogLevel> & names_of(const LogLevel *) {
    static const name_list<LogLevel> names = {
        {"debug", LogLevel::DEBUG},
        {"info", LogLevel::INFO},
        {"warn", LogLevel::WARN},
        {"error", LogLevel::ERROR},
    };
    return names;
}

const name_list<LogFormat> & names_of(const LogFormat *) {
    static const name_list<LogFormat> names = {{"text", LogFormat::TEXT}, {"json", LogFormat::JSON}};
    return names;
}

std::invalid_argument bad(const std::string & text, const std::string & allowed) {
    return std::invalid_argument("'" + text + "' is not allowed: " + allowed);
}

void check_range(double value, const std::string & text, const setting_info & info) {
    if (has_range(info) && !(value >= info.min && value <= info.max)) {
        std::ostringstream allowed;
        allowed.precision(15);
        allowed << "give a number from " << info.min << " to " << info.max;
        throw bad(text, allowed.str());
    }
}

void check_range(const json & value, const setting_info & info) {
    if (has_range(info) && !(value >= info.min && value <= info.max)) {
        std::ostringstream problem;
        problem.precision(15);
        problem << "value must be between " << info.min << " and " << info.max;
        throw std::invalid_argument(problem.str());
    }
}

// "debug, info, warn or error"
template <typename T> std::string all_names(const name_list<T> & names) {
    std::string text;
    for (size_t i = 0; i < names.size(); i++) {
        text += i == 0 ? "" : i + 1 < names.size() ? ", " : " or ";
        text += names[i].first;
    }
    return text;
}

template <typename T> void parse_name(T & out, const std::string & text) {
    const auto & names = names_of(&out);
    const auto   found = std::find_if(names.begin(), names.end(), [&](const auto & row) { return text == row.first; });
    if (found == names.end()) {
        throw bad(text, "give " + all_names(names));
    }
    out = found->second;
}

template <typename T> void parse_name(T & out, const json & value) {
    if (!value.is_string()) {
        throw std::invalid_argument("value must be " + all_names(names_of(&out)));
    }
    parse_name(out, value.get_ref<const std::string &>());
}

template <typename T> json name_of(T value) {
    const auto & names = names_of(&value);
    return std::find_if(names.begin(), names.end(), [&](const auto & row) { return value == row.second; })->first;
}

} // namespace

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

// The same for values in JSON.
void parse(bool & out, const json & value, const setting_info &) {
    if (!value.is_boolean()) {
        throw std::invalid_argument("value must be true or false");
    }
    out = value;
}

void parse(int64_t & out, const json & value, const setting_info & info) {
    if (!value.is_number_integer()) {
        throw std::invalid_argument("value must be a whole number");
    }
    check_range(value, info);
    out = value;
}

void parse(double & out, const json & value, const setting_info & info) {
    if (!value.is_number()) {
        throw std::invalid_argument("value must be a number");
    }
    check_range(value, info);
    out = value;
}

void parse(std::string & out, const json & value, const setting_info & info) {
    if (!value.is_string()) {
        throw std::invalid_argument("value must be a string");
    }
    parse(out, value.get_ref<const std::string &>(), info);
}

void parse(string_list & out, const json & value, const setting_info & info) {
    if (!value.is_array() ||
        !std::all_of(value.begin(), value.end(), [](const json & item) { return item.is_string(); })) {
        throw std::invalid_argument("value must be a list of strings");
    }
    out.resize(value.size());
    for (size_t i = 0; i < value.size(); i++) {
        parse(out[i], value[i], info);
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

void parse(LogLevel & out, const std::string & text, const setting_info &) { parse_name(out, text); }
void parse(LogFormat & out, const std::string & text, const setting_info &) { parse_name(out, text); }
void parse(LogLevel & out, const json & value, const setting_info &) { parse_name(out, value); }
void parse(LogFormat & out, const json & value, const setting_info &) { parse_name(out, value); }

json value_json(LogLevel value) { return name_of(value); }
json value_json(LogFormat value) { return name_of(value); }

} // namespace atlas
