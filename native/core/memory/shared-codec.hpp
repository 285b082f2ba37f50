// How an entry is called in a tier that servers share, and how its bytes lie there. This one hides nothing; one that seals
// takes its place. Any thread; touches nothing.
#pragma once

#include "atlas-tier.hpp"
#include "digest.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace atlas::memory {

// Bytes that are to be stored, one piece behind the other. `owner` keeps those valid that are not the caller's.
struct value_pieces {
    std::vector<std::string_view> pieces;
    std::shared_ptr<const void>   owner;
};

// What became of a stored value.
enum class unwrapping : uint8_t {
    good,
    wrong, // these cannot be the bytes that were stored under the name
    foreign, // they may be, but this server cannot read them
    no_room,
};

// Whether there is room for a value of so many bytes in place of the stored one, which is smaller. Empty: there is.
using room_for = std::function<bool(uint64_t n_bytes)>;

class shared_codec {
  public:
    virtual ~shared_codec() = default;

    // The key of an entry in the tier. It ends with 64 hexadecimal digits behind a colon.
    virtual std::string name_of(const digest & root, const digest & key) const {
        constexpr size_t ROOT_DIGITS = 16;
        return "atlas:1:" + digest_hex(root).substr(0, ROOT_DIGITS) + ":" + digest_hex(key);
    }

    // How many bytes are stored at most for so many, by any codec.
    static uint64_t max_stored_bytes(uint64_t plain) { return plain + plain / 4096 + 128; }

    // What is stored under the name for these bytes: the header of an entry's file, and its data. Throws std::runtime_error
    // and std::bad_alloc.
    virtual value_pieces wrap(const std::string &, value_pieces plain) const { return plain; }

    // Puts the bytes that were wrapped in the place of those that were stored under the name, where the result is good.
    // Throws std::bad_alloc.
    virtual unwrapping unwrap(const std::string &, tier_value &, const room_for &) const { return unwrapping::good; }
};

} // namespace atlas::memory
