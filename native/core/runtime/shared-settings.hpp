// What servers share, by the settings. The main thread, at the start.
#pragma once

#include "atlas-config.hpp"
#include "atlas-memory.hpp"
#include "atlas-secret-key.hpp"

namespace atlas {

// fleet: the servers' secret; null: they have none, of which the log warns where others reach the place. Connects to nothing.
// Throws std::invalid_argument that names the setting.
shared_options shared_by(const AtlasServerConfig & config, const secret_key * fleet);

} // namespace atlas
