// The registry of settings: fills AtlasServerConfig from the command line, the environment, a TOML file and defaults, in
// falling precedence, and changes it while the server runs. The table itself is atlas-settings.def. Touches the environment and the TOML file; the main thread fills it, HTTP threads read and
// change it.
#pragma once

#include "atlas-config.hpp"

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace atlas {

// Sets the log's level and format from the settings. Any thread.
void apply_logging(const AtlasServerConfig & config);

// One row of the table.
struct setting_info {
    const char * name;
    const char * type; // "bool", "int", "float", "string", "list", "level" or "format"
    std::string  flag; // "--atlas-…"
    std::string  env; // "ATLAS_…"
    double       min;
    double       max;
    bool         is_live; // can be changed while the server runs
    bool         is_secret; // no answer and no log shows its value
    const char * help;
};

// Where a value came from; a later one wins over an earlier one.
enum class setting_origin { fallback, file, environment, flag, request };

// Any thread but the token loop, since values() takes a lock. Readers get a snapshot, which never changes.
class settings {
  public:
    settings();
    settings(const settings & other); // with the present values

    // The table, in its own order. An index into it names a setting below.
    static const std::vector<setting_info> & table();

    // Sets one value from text unless a stronger origin has set it.
    // Throws std::invalid_argument with one line that names what was wrong and what is allowed.
    void set(size_t index, const std::string & text, setting_origin origin);

    // Takes all values of a program's, which count as given by flags. Throws std::invalid_argument that names the field.
    void take(const AtlasServerConfig & config);

    // Takes every ATLAS_… variable. An empty variable counts as unset; an unknown one is returned, not an error.
    // Throws std::invalid_argument that names the variable.
    std::vector<std::string> read_environment();

    // Takes every key of a TOML file. Throws std::invalid_argument that names the file and the key or the line. To be called
    // before other threads know the object.
    void read_file(const std::string & path);

    // The file that was read, as an absolute path; empty: none.
    const std::string & config_file() const { return file; }

    // Changes settings from the text of a JSON object: values by name, as to_json() shows them. Changes all of them,
    // and the log with them, or none. Returns JSON as ATLAS_QUERY_SETTINGS_CHANGE in atlas-abi.h says.
    std::string change(const std::string & text);

    // The present values.
    std::shared_ptr<const AtlasServerConfig> values() const;

    // JSON array, one object a setting: name, flag, env, type, value (of secrets, too), default, origin, reload ("live"
    // or "restart"), secret, help and, where there are limits, min and max.
    std::string to_json() const;

  private:
    struct state {
        AtlasServerConfig           config;
        std::vector<setting_origin> origins;
    };

    std::shared_ptr<const state> snapshot() const;

    std::string                  file;
    mutable std::mutex           mutex; // guards current; a change holds it from reading to replacing
    std::shared_ptr<const state> current;
};

} // namespace atlas
