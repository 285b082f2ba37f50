#include "seal-queries.hpp"

#include "atlas-abi.h"

namespace atlas {

static_assert(ATLAS_SEALED_EXTRA == sealed_bytes(0), "what Python counts with");

std::optional<std::string> answer_seal_query(const sealer * seal, int32_t what, std::string_view argument) {
    const size_t end = argument.find('\0');
    if (seal == nullptr || end == std::string_view::npos) {
        return std::nullopt;
    }
    const auto name = argument.substr(0, end), bytes = argument.substr(end + 1);
    if (what == ATLAS_QUERY_SEAL) {
        return seal->seal(name, bytes);
    }
    std::string plain;
    return seal->unseal(name, bytes, plain) == unsealed::good ? std::optional(std::move(plain)) : std::nullopt;
}

} // namespace atlas
