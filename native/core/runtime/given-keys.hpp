// The keys that the settings give. Reads files and runs a command, once; the main thread, at the start.
#pragma once

#include "atlas-config.hpp"
#include "atlas-seal.hpp"

#include <memory>
#include <optional>

namespace atlas {

// What encrypts under the memory path; null where that is not wanted, or nothing is kept. Checks the path's own mark, and makes
// it. Throws std::invalid_argument and std::runtime_error with a line that names the setting.
std::shared_ptr<const sealer> settle_encryption(const AtlasServerConfig & config);

// The secret of the fleet. Throws std::invalid_argument likewise.
std::optional<secret_key> fleet_secret(const AtlasServerConfig & config);

} // namespace atlas
