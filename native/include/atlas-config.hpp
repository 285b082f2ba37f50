/// @file
/// The settings of ATLAS, by the names that GET /v1/atlas/config shows. atlas-settings.def is their table: defaults, limits and
/// units.
#pragma once

#include "atlas-log.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace atlas {

/// What a setting of several texts is, as AtlasServerConfig::plugins.
using string_list = std::vector<std::string>;

/// The settings: plain values, which a server copies. Whoever takes one checks the limits, and throws std::invalid_argument that
/// names the field. Settings that are live change later by AtlasServer::handle_config_request().
struct AtlasServerConfig {
#define ATLAS_SETTING(name, type, default_value, ...) type name = default_value;
#include "atlas-settings.def"
#undef ATLAS_SETTING

    /// Defaults, and what the ATLAS_… variables of the environment say. An unknown variable is ignored, and logged. Throws
    /// std::invalid_argument that names the variable. Any thread, while none
    /// changes the environment.
    static AtlasServerConfig from_environment();
};

} // namespace atlas
