// The key of an entry as 32 bytes; outside of the store it is text. Touches nothing; any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>

namespace atlas::memory {

using digest = std::array<uint8_t, 32>;

struct digest_hash {
    size_t operator()(const digest & key) const {
        size_t hash;
        std::memcpy(&hash, key.data(), sizeof(hash)); // uniform already
        return hash;
    }
};

// The key that the text names; nothing where it is not 64 lower-case hexadecimal digits.
std::optional<digest> digest_from_hex(const std::string & text);
std::string           digest_hex(const digest & key);

} // namespace atlas::memory
