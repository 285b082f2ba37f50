// The settings of ATLAS, by the names that GET /v1/atlas/config shows. atlas-settings.def is their table: defaults, limits and
// units.
#pragma once

#include "atlas-log.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace atlas {

using string_list = std::vector<std::string>;

// Plain values. Whoever takes one checks the limits, and throws std::invalid_argument that names the field.
struct AtlasServerConfig {
#define ATLAS_SETTING(name, type, default_value, ...) type name = default_value;
#include "atlas-settings.def"
#undef ATLAS_SETTING

    // Defaults, and what the ATLAS_… variables of the environment say. An unknown variable is ignored, and logged. Throws
    // std::invalid_argument that names the variable.
    static AtlasServerConfig from_environment();
};

} // namespace atlas
