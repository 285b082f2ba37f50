// The queries by which Python seals what it keeps (atlas-abi.h).
#pragma once

#include "atlas-seal.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace atlas {

// Answers ATLAS_QUERY_SEAL and ATLAS_QUERY_UNSEAL. seal: null: nothing is encrypted, and nothing can be. Any thread but the
// loop's. Throws what sealer does.
std::optional<std::string> answer_seal_query(const sealer * seal, int32_t what, std::string_view argument);

} // namespace atlas
