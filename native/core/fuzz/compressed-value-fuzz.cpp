// Any bytes as a compressed value: as they come, behind a head and a header that are right, and as the data of one of ours.
// What is taken has the size that its header says, and never more than there was room for.
#include "compressed-codec.hpp"
#include "entry-file.hpp"

#include <cstdlib>
#include <cstring>
#include <string>

using namespace atlas;
using namespace atlas::memory;

constexpr uint64_t ROOM = 1 << 20;

static void require(bool holds) {
    if (!holds) {
        std::abort();
    }
}

static std::string header_of(uint64_t n_data) {
    file_header header;
    header.kind       = entry_kind::block;
    header.tokens     = memory_tokens(16, 7);
    header.data_bytes = n_data;
    const auto bytes  = encode_header(header);
    return {bytes.begin(), bytes.end()};
}

static void take(const shared_codec & codec, const std::string & value) {
    tier_value given    = {nullptr, value};
    bool       has_room = true;
    const auto result   = codec.unwrap("name", given, [&](uint64_t n) {
        has_room = n <= ROOM;
        return has_room;
    });
    require(result == unwrapping::good || given.bytes == value);
    require(has_room || result == unwrapping::no_room);
    require(given.bytes.size() <= std::max<uint64_t>(value.size(), ROOM));
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t * bytes, size_t n_bytes) {
    static const auto codec = make_compressed_codec(std::make_shared<const shared_codec>(), compression_is_built());
    const std::string all(reinterpret_cast<const char *>(bytes), n_bytes);
    take(*codec, all);
    take(*codec, "ATLASKVZ" + all);
    uint16_t n_data = 0; // what the header says of the frame
    if (n_bytes > 2) {
        std::memcpy(&n_data, bytes, sizeof(n_data));
        const std::string header = header_of(8 * (uint64_t) n_data);
        std::string       head   = "ATLASKVZ";
        for (const uint32_t number : {1u, (uint32_t) header.size(), (uint32_t) bytes[2] % 80, 0u}) {
            head.append(reinterpret_cast<const char *>(&number), sizeof(number));
        }
        take(*codec, head + header + all.substr(3));
    }
    const std::string header = header_of(all.size());
    std::string       value;
    for (const auto & piece : codec->wrap("name", {{header, all}, nullptr}).pieces) {
        value += piece;
    }
    tier_value back = {nullptr, value};
    require(codec->unwrap("name", back, {}) == unwrapping::good && back.bytes == header + all);
    return 0;
}
