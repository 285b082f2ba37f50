// The values of settings: from text, from JSON and from TOML, and shown as JSON. A value that is not allowed throws
// std::invalid_argument with one line that says what is. Touches nothing; any thread.
#pragma once

#include "atlas-settings.hpp"

#include <nlohmann/json.hpp>
#include <toml++/toml.h>

#include <cstdint>
#include <string>

namespace atlas {

// What setting_info::type says.
inline const char * type_name(const bool *) { return "bool"; }
inline const char * type_name(const int64_t *) { return "int"; }
inline const char * type_name(const double *) { return "float"; }
inline const char * type_name(const std::string *) { return "string"; }
inline const char * type_name(const string_list *) { return "list"; }
inline const char * type_name(const LogLevel *) { return "level"; }
inline const char * type_name(const LogFormat *) { return "format"; }

// Whether numbers have limits.
bool has_range(const setting_info & info);

// From text, as on the command line and in the environment.
void parse(bool & out, const std::string & text, const setting_info & info);
void parse(int64_t & out, const std::string & text, const setting_info & info);
void parse(double & out, const std::string & text, const setting_info & info);
void parse(std::string & out, const std::string & text, const setting_info & info);
void parse(string_list & out, const std::string & text, const setting_info & info);
void parse(LogLevel & out, const std::string & text, const setting_info & info);
void parse(LogFormat & out, const std::string & text, const setting_info & info);

// From JSON, as a request gives it.
void parse(bool & out, const nlohmann::json & value, const setting_info & info);
void parse(int64_t & out, const nlohmann::json & value, const setting_info & info);
void parse(double & out, const nlohmann::json & value, const setting_info & info);
void parse(std::string & out, const nlohmann::json & value, const setting_info & info);
void parse(string_list & out, const nlohmann::json & value, const setting_info & info);
void parse(LogLevel & out, const nlohmann::json & value, const setting_info & info);
void parse(LogFormat & out, const nlohmann::json & value, const setting_info & info);

template <typename T> nlohmann::json value_json(const T & value) { return value; }
nlohmann::json                       value_json(LogLevel value);
nlohmann::json                       value_json(LogFormat value);

// A TOML value as the text that the command line would give.
std::string toml_text(const toml::node & node);

} // namespace atlas
