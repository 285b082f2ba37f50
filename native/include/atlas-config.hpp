// Settings of ATLAS: one struct with the effective values, and the registry that fills it from the command line, the
// environment, a TOML file and defaults, in falling precedence. The table itself is atlas-settings.def.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace atlas {

enum class LogLevel { DEBUG = 1, INFO = 2, WARN = 3, ERROR = 4 }; // values as in atlas-abi.h

using string_list = std::vector<std::string>;

struct AtlasServerConfig {
#define ATLAS_SETTING(name, type, default_value, flag, env, min, max, help) type name = default_value;
#include "atlas-settings.def"
#undef ATLAS_SETTING
};

// One row of the table, for whoever lists settings.
struct setting_info {
    const char * name;
    const char * type; // "bool", "int", "float", "string", "list" or "level"
    std::string  flag; // "--atlas-…"
    std::string  env;  // "ATLAS_…"
    double       min;
    double       max;
    const char * help;
};

// Where a value came from; a later one wins over an earlier one.
enum class setting_origin { fallback, file, environment, flag };

// Filled at start by one thread, then read by any number.
class settings {
  public:
    settings();

    // The table, in its own order. An index into it names a setting below.
    static const std::vector<setting_info> & table();

    // Sets one value from text unless a stronger origin has set it.
    // Throws std::invalid_argument with one line that names what was wrong and what is allowed.
    void set(size_t index, const std::string & text, setting_origin origin);

    // Takes every ATLAS_… variable. An empty variable counts as unset; an unknown one is returned, not an error.
    // Throws std::invalid_argument that names the variable.
    std::vector<std::string> read_environment();

    // Takes every key of a TOML file. Throws std::invalid_argument that names the file and the key or the line.
    void read_file(const std::string & path);

    const AtlasServerConfig & values() const { return config; }

    // JSON array, one object a setting: name, flag, env, type, value, default, origin, secret, min, max, help.
    std::string to_json() const;

  private:
    AtlasServerConfig           config;
    std::vector<setting_origin> origins;
};

} // namespace atlas
