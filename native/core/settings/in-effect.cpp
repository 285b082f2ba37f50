#include "atlas-in-effect.hpp"

#include "setting-values.hpp"

#include <algorithm>
#include <cstring>

namespace atlas {

using nlohmann::json;

static const setting_info & row_of(const char * name) {
    const auto & table = settings::table();
    return *std::find_if(table.begin(), table.end(),
                         [&](const auto & row) { return std::strcmp(row.name, name) == 0; });
}

static std::string switches_of(const char * name) { return row_of(name).flag + " or " + row_of(name).env; }

std::string saving_off(const AtlasServerConfig & config) {
    if (!config.enable_memory_persistence) {
        return "memory persistence is off: turn it on with " + switches_of("enable_memory_persistence");
    }
    if (config.memory_save_path.empty()) {
        const auto & row = row_of("memory_save_path");
        return "memory persistence is off: start the server with " + row.flag + " DIR or set " + row.env;
    }
    return "";
}

std::string storing_off(const AtlasServerConfig & config) {
    return config.store_responses ? saving_off(config)
                                  : "nothing is stored: turn that on with " + switches_of("store_responses");
}

std::string conversations_off(const AtlasServerConfig & config) {
    const std::string off = config.shared_url.empty() ? saving_off(config) : "";
    if (!off.empty() || config.enable_auto_memory) {
        return off;
    }
    return "the memory of conversations is off: turn it on with " + switches_of("enable_auto_memory");
}

bool is_encrypted(const AtlasServerConfig & config) {
    return saving_off(config).empty() &&
           (!config.encryption_key_file.empty() || !config.encryption_key_command.empty());
}

std::string metrics_off(const AtlasServerConfig & config) {
    return config.enable_metrics_collection
               ? ""
               : "metrics are not collected: turn that on with " + switches_of("enable_metrics_collection");
}

LogLevel least_logged(const AtlasServerConfig & config) {
    return config.verbose_logging ? LogLevel::DEBUG : config.log_level;
}

std::string in_effect_json(const AtlasServerConfig & config) {
    const auto shown = [](const std::string & text) { return text.empty() ? json() : json(text); };
    return json{
        {"saving_off", shown(saving_off(config))},   {"conversations_off", shown(conversations_off(config))},
        {"metrics_off", shown(metrics_off(config))}, {"log_level", value_json(least_logged(config))},
        {"encrypted", is_encrypted(config)},
    }
        .dump();
}

} // namespace atlas
