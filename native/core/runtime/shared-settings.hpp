// What servers share, by the settings. The main thread, at the start.
#pragma once

#include "atlas-config.hpp"
#include "atlas-memory.hpp"
#include "atlas-secret-key.hpp"
#include "atlas-shared-records.hpp"

#include <memory>

namespace atlas {

// fleet: the servers' secret; null: they have none, of which the log warns where others reach the place. Connects to nothing.
// Throws std::invalid_argument that names the setting.
shared_options shared_by(const AtlasServerConfig & config, const secret_key * fleet);

// The records that servers share; null where nothing is shared, or nothing is kept here. As shared_by(), after which it is
// called: of what is wrong that one has told.
std::unique_ptr<shared_records> records_by(const AtlasServerConfig & config, const secret_key * fleet);

} // namespace atlas
