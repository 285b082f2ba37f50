#include "compressed-codec.hpp"

#include "atlas-log.hpp"
#include "atlas-state-bytes.hpp"
#include "entry-file.hpp"
#ifdef ATLAS_ZSTD
#include "shuffled-zstd.hpp"
#endif

#include <atomic>
#include <cstring>
#include <utility>

namespace atlas::memory {

namespace {

constexpr char     MAGIC[8]   = {'A', 'T', 'L', 'A', 'S', 'K', 'V', 'Z'};
constexpr uint32_t VERSION    = 1;
constexpr size_t   HEAD_BYTES = 24;

// Offsets in the value; in the entry's header that follows the head, where it says how much data there is.
enum offset : size_t { AT_VERSION = 8, AT_HEADER_BYTES = 12, AT_STRIDE = 16, AT_RESERVED = 20, AT_DATA_BYTES = 32 };

template <typename T> T get(std::string_view from, size_t at) {
    T value = 0;
    for (size_t i = 0; i < sizeof(T); i++) {
        value |= (T) (uint8_t) from[at + i] << (8 * i);
    }
    return value;
}

#ifdef ATLAS_ZSTD
constexpr bool IS_BUILT = true;

template <typename T> void put(std::string & to, T value) {
    for (size_t i = 0; i < sizeof(T); i++) {
        to += (char) (value >> (8 * i));
    }
}

const uint8_t * bytes_of(std::string_view text) { return reinterpret_cast<const uint8_t *>(text.data()); }

// The pieces with their data compressed; as they are where that makes them no smaller. The first is the entry's header.
value_pieces compressed(value_pieces plain) {
    constexpr size_t LEAST = 4096; // below that a frame's own bytes count
    if (plain.pieces.size() != 2 || plain.pieces[1].size() < LEAST) {
        return plain;
    }
    struct owned {
        std::string   start;
        shuffled_zstd data;
    };
    auto made = compress(bytes_of(plain.pieces[1]), plain.pieces[1].size());
    if (!made) {
        return plain;
    }
    const auto owner = std::make_shared<owned>();
    owner->start.append(MAGIC, sizeof(MAGIC));
    put(owner->start, VERSION);
    put(owner->start, (uint32_t) plain.pieces[0].size());
    put(owner->start, made->stride);
    put(owner->start, (uint32_t) 0);
    owner->start.append(plain.pieces[0]);
    owner->data = std::move(*made);
    const std::string_view frame(reinterpret_cast<const char *>(owner->data.frame.data()), owner->data.frame.size());
    return {{owner->start, frame}, owner};
}

// No more than a tier takes of a plain value.
constexpr uint64_t MAX_PLAIN_BYTES = 512ull << 20;

unwrapping decompressed(tier_value & value, const room_for & has_room) {
    const std::string_view all = value.bytes;
    if (get<uint32_t>(all, AT_VERSION) != VERSION) {
        return unwrapping::foreign;
    }
    const size_t n_header = get<uint32_t>(all, AT_HEADER_BYTES);
    if (n_header < header_bytes(0) || n_header > header_bytes(MAX_TOKENS) || all.size() <= HEAD_BYTES + n_header ||
        get<uint32_t>(all, AT_RESERVED) != 0) {
        return unwrapping::wrong;
    }
    const auto     start  = all.substr(HEAD_BYTES, n_header);
    const auto     frame  = all.substr(HEAD_BYTES + n_header);
    const uint64_t n_data = get<uint64_t>(start, AT_DATA_BYTES);
    file_header    header;
    if (n_data > MAX_ZSTD_RATIO * frame.size() || n_data > MAX_PLAIN_BYTES ||
        decode_header(bytes_of(start), n_header, n_header + n_data, header) != file_state::good ||
        header_bytes(header.tokens.size()) != n_header) {
        return unwrapping::wrong;
    }
    if (has_room && !has_room(n_header + n_data)) {
        return unwrapping::no_room;
    }
    const auto plain = std::make_shared<state_bytes>(n_header + n_data);
    std::memcpy(plain->data(), start.data(), n_header);
    if (!decompress(bytes_of(frame), frame.size(), get<uint32_t>(all, AT_STRIDE), plain->data() + n_header, n_data)) {
        return unwrapping::wrong;
    }
    value = {plain, {reinterpret_cast<const char *>(plain->data()), plain->size()}};
    return unwrapping::good;
}
#else
constexpr bool IS_BUILT = false;

value_pieces compressed(value_pieces plain) { return plain; }
unwrapping   decompressed(tier_value &, const room_for &) { return unwrapping::foreign; }
#endif

class compressed_codec : public shared_codec {
  public:
    compressed_codec(std::shared_ptr<const shared_codec> inner, bool compresses)
        : inner(std::move(inner)), compresses(compresses) {}

    std::string name_of(const digest & root, const digest & key) const override { return inner->name_of(root, key); }

    value_pieces wrap(const std::string & name, value_pieces plain) const override {
        return inner->wrap(name, compresses ? compressed(std::move(plain)) : std::move(plain));
    }

    unwrapping unwrap(const std::string & name, tier_value & value, const room_for & has_room) const override {
        const auto opened = inner->unwrap(name, value, has_room);
        if (opened != unwrapping::good || value.bytes.size() < HEAD_BYTES ||
            std::memcmp(value.bytes.data(), MAGIC, sizeof(MAGIC)) != 0) {
            return opened;
        }
        const auto result = decompressed(value, has_room);
        if (result == unwrapping::foreign && !is_told.exchange(true)) {
            log(LogLevel::WARN, IS_BUILT
                                    ? "shared memory has state that a newer version compressed: it is not used here"
                                    : "shared memory has compressed state, which this build cannot read, as libzstd "
                                      "was not there: apt-get install libzstd-dev, and build anew");
        }
        return result;
    }

  private:
    const std::shared_ptr<const shared_codec> inner;
    const bool                                compresses;
    mutable std::atomic<bool>                 is_told{false};
};

} // namespace

bool compression_is_built() { return IS_BUILT; }

std::shared_ptr<const shared_codec> make_compressed_codec(std::shared_ptr<const shared_codec> inner, bool compresses) {
    return std::make_shared<const compressed_codec>(std::move(inner), compresses);
}

} // namespace atlas::memory
