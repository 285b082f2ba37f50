// State that is compressed comes back, and what is no such thing does no harm.
#include "compressed-codec.hpp"

#include "atlas-secret-key.hpp"
#include "cases.hpp"
#include "entry-file.hpp"
#include "sealed-codec.hpp"

#include <cstring>
#include <random>

using namespace atlas;
using namespace atlas::memory;

static const auto PLAIN      = std::make_shared<const shared_codec>();
static const auto COMPRESSED = make_compressed_codec(PLAIN, compression_is_built());

// The header of an entry's file with so much data.
static std::string header_of(uint64_t n_data) {
    file_header header;
    header.kind       = entry_kind::block;
    header.tokens     = memory_tokens(16, 7);
    header.data_bytes = n_data;
    const auto bytes  = encode_header(header);
    return {bytes.begin(), bytes.end()};
}

// Numbers of so many bytes that differ in all but their last: as the exponents of numbers do.
static std::string numbers(size_t n_bytes, size_t of_bytes) {
    std::mt19937 random(7);
    std::string  data(n_bytes, '\0');
    for (size_t i = 0; i < n_bytes; i++) {
        data[i] = (char) (i % of_bytes == of_bytes - 1 ? 60 + random() % 4 : random());
    }
    return data;
}

// Groups of 34 bytes, each of which is near that of the other groups: as those of types with a scale are.
static std::string groups(size_t n_bytes) {
    std::mt19937 random(7);
    std::string  data(n_bytes, '\0');
    for (size_t i = 0; i < n_bytes; i++) {
        data[i] = (char) (i % 34 * 7 + random() % 2);
    }
    return data;
}

static std::string wrapped(const shared_codec & codec, const std::string & header, const std::string & data) {
    std::string text;
    for (const auto & piece : codec.wrap("name", {{header, data}, nullptr}).pieces) {
        text += piece;
    }
    return text;
}

static unwrapping unwrap(const shared_codec & codec, const std::string & value, std::string & plain,
                         const room_for & has_room = {}) {
    tier_value given  = {nullptr, value};
    const auto result = codec.unwrap("name", given, has_room);
    plain             = given.bytes;
    return result;
}

static unwrapping unwrap(const std::string & value) {
    std::string plain;
    return unwrap(*COMPRESSED, value, plain);
}

CASE(values_are_smaller_and_come_back) {
    if (!compression_is_built()) {
        return;
    }
    const auto sealed =
        make_compressed_codec(make_sealed_codec(secret_key(std::array<uint8_t, SECRET_BYTES>{1})), true);
    std::string plain;
    for (const size_t of_bytes : {2, 4, 34}) {
        for (const size_t n : {5000u, 262143u, 262144u, 262145u, 900001u}) {
            const std::string data = of_bytes == 34 ? groups(n) : numbers(n, of_bytes), header = header_of(n);
            const std::string value = wrapped(*COMPRESSED, header, data);
            CHECK(value.size() < header.size() + n && value.substr(0, 8) == "ATLASKVZ");
            CHECK(n < 100000 || value.size() < header.size() + n - n / of_bytes / 2);
            CHECK(n < 100000 || (uint8_t) value[16] == of_bytes);
            CHECK(unwrap(*COMPRESSED, value, plain) == unwrapping::good && plain == header + data);
            const std::string hidden = wrapped(*sealed, header, data);
            CHECK(hidden.size() < value.size() + 1000 && hidden.find("ATLASKVZ") == std::string::npos);
            CHECK(unwrap(*sealed, hidden, plain) == unwrapping::good && plain == header + data);
        }
    }
}

CASE(what_would_not_be_smaller_stays_as_it_is) {
    std::mt19937 random(7);
    std::string  noise(100000, '\0'), plain;
    for (char & byte : noise) {
        byte = (char) random();
    }
    // what is all but empty would look like a bomb
    for (const std::string & data : {noise, std::string(1 << 20, '\0'), numbers(100, 2), std::string()}) {
        const std::string all = header_of(data.size()) + data;
        CHECK(wrapped(*COMPRESSED, header_of(data.size()), data) == all);
        CHECK(unwrap(*COMPRESSED, all, plain) == unwrapping::good && plain == all);
    }
    const auto        reads_only = make_compressed_codec(PLAIN, false);
    const std::string data = numbers(100000, 2), header = header_of(data.size());
    CHECK(wrapped(*reads_only, header, data) == header + data);
    CHECK(unwrap(*reads_only, wrapped(*COMPRESSED, header, data), plain) == unwrapping::good && plain == header + data);
}

CASE(whoever_writes_compressed_values_does_no_harm) {
    if (!compression_is_built()) {
        return;
    }
    const std::string data = numbers(600000, 2), header = header_of(data.size());
    const std::string good     = wrapped(*COMPRESSED, header, data);
    const size_t      at_frame = 24 + header.size();
    std::string       plain;
    for (size_t at = 8; at < good.size(); at += at < 24 + header.size() + 40 ? 1 : 997) {
        std::string changed = good;
        changed[at]         = (char) (changed[at] ^ 1);
        const auto result   = unwrap(*COMPRESSED, changed, plain);
        // by another stride, or of another frame, data of that size may come, whose checksum tells later that it is wrong
        const bool may_be = (at >= 16 && at < 20) || at >= at_frame;
        CHECK(result != unwrapping::good || (may_be && plain.size() == header.size() + data.size()));
        CHECK(unwrap(good.substr(0, at)) == (at < 24 ? unwrapping::good : unwrapping::wrong)); // too short to be one
    }
    CHECK(unwrap(good + "x") == unwrapping::wrong && unwrap(good + good) == unwrapping::wrong);
    for (const uint64_t n : {data.size() - 1, data.size() + 1, (size_t) 0}) {
        std::string other = good;
        CHECK(header_of(n).size() == header.size());
        CHECK(unwrap(other.replace(24, header.size(), header_of(n))) == unwrapping::wrong);
    }
    for (const uint32_t stride : {0u, 65u, 0xffffffffu}) {
        std::string other = good;
        std::memcpy(&other[16], &stride, sizeof(stride));
        CHECK(unwrap(other) == unwrapping::wrong);
    }
    std::string later = good;
    later[8]          = 2;
    CHECK(unwrap(later) == unwrapping::foreign);
    CHECK(unwrap(good.substr(0, at_frame)) == unwrapping::wrong);
}

CASE(a_bomb_takes_no_room) {
    if (!compression_is_built()) {
        return;
    }
    const std::string data = numbers(100000, 2), header = header_of(data.size());
    const std::string good = wrapped(*COMPRESSED, header, data), frame = good.substr(24 + header.size());
    std::string       plain;
    uint64_t          asked = 0;
    const auto        has   = [&](bool answer) {
        return [&asked, answer](uint64_t n) {
            asked = n;
            return answer;
        };
    };
    for (const uint64_t n : {(uint64_t) 65 * frame.size(), (uint64_t) 600 << 20, (uint64_t) 1 << 40}) {
        std::string bomb = good;
        CHECK(unwrap(*COMPRESSED, bomb.replace(24, header.size(), header_of(n)), plain, has(true)) ==
              unwrapping::wrong);
        CHECK(asked == 0);
    }
    CHECK(unwrap(*COMPRESSED, good, plain, has(false)) == unwrapping::no_room);
    CHECK(asked == header.size() + data.size() && plain == good);
    CHECK(unwrap(*COMPRESSED, good, plain, has(true)) == unwrapping::good);
}
