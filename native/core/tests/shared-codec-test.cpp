#include "atlas-secret-key.hpp"
#include "cases.hpp"
#include "fleet-seal.hpp"
#include "sealed-codec.hpp"

#include <cstring>

using namespace atlas;
using namespace atlas::memory;

static std::shared_ptr<const shared_codec> sealed_by(char c) {
    std::array<uint8_t, SECRET_BYTES> bytes = {};
    bytes[0]                                = (uint8_t) c;
    return make_sealed_codec(secret_key(bytes));
}

static digest digest_of(char c) {
    digest made;
    made.fill((uint8_t) c);
    return made;
}

static const digest ROOT = digest_of(1), OTHER_ROOT = digest_of(2), KEY = digest_of(3), OTHER_KEY = digest_of(4);

static std::string wrapped(const shared_codec & codec, const std::string & name,
                           const std::vector<std::string_view> & pieces) {
    const auto  made = codec.wrap(name, {pieces, nullptr});
    std::string text;
    for (const auto & piece : made.pieces) {
        text += piece;
    }
    return text;
}

static std::optional<std::string> unwrapped(const shared_codec & codec, const std::string & name,
                                            const std::string & value) {
    tier_value plain = {nullptr, value};
    return codec.unwrap(name, plain, {}) == unwrapping::good ? std::optional(std::string(plain.bytes)) : std::nullopt;
}

CASE(a_plain_codec_leaves_all_as_it_is) {
    const shared_codec codec;
    CHECK(codec.name_of(ROOT, KEY) == "atlas:1:" + digest_hex(ROOT).substr(0, 16) + ":" + digest_hex(KEY));
    CHECK(wrapped(codec, "name", {"header", "da", "ta"}) == "headerdata");
    CHECK(unwrapped(codec, "name", "headerdata") == "headerdata");
}

CASE(names_tell_nothing_and_are_the_same_on_all_servers_of_a_fleet) {
    const auto        codec = sealed_by('f'), same = sealed_by('f'), other = sealed_by('g');
    const std::string name = codec->name_of(ROOT, KEY);
    CHECK(name == same->name_of(ROOT, KEY) && name != other->name_of(ROOT, KEY));
    CHECK(name.size() == shared_codec().name_of(ROOT, KEY).size() && name.rfind("atlas:1:", 0) == 0);
    CHECK(name.find(digest_hex(KEY).substr(0, 8)) == std::string::npos);
    CHECK(name.find(digest_hex(ROOT).substr(0, 8)) == std::string::npos);
    CHECK(name.substr(0, 24) == codec->name_of(ROOT, OTHER_KEY).substr(0, 24)); // one root, one beginning
    CHECK(name.substr(0, 24) != codec->name_of(OTHER_ROOT, KEY).substr(0, 24));
    CHECK(codec->name_of(KEY, ROOT) != name);
}

CASE(a_value_comes_back_under_its_name_with_its_secret_only) {
    const auto codec = sealed_by('f'), other = sealed_by('g');
    for (const size_t n : {(size_t) 0, (size_t) 1, SEAL_CHUNK_BYTES - 1, SEAL_CHUNK_BYTES, SEAL_CHUNK_BYTES + 1,
                           2 * SEAL_CHUNK_BYTES, 3 * SEAL_CHUNK_BYTES + 100}) {
        std::string header(1144, 'h'), data(n, 'd');
        for (size_t i = 0; i < n; i++) {
            data[i] = (char) (i * 7 + i / 251);
        }
        const std::string_view all    = data;
        const auto             sealed = wrapped(*codec, "name", {header, all.substr(0, n / 3), "", all.substr(n / 3)});
        CHECK(sealed.size() == sealed_bytes(header.size(), n));
        CHECK(sealed.find(std::string(64, 'h')) == std::string::npos);
        CHECK(unwrapped(*codec, "name", sealed) == header + data);
        CHECK(!unwrapped(*codec, "other name", sealed)); // stored anew under another name
        CHECK(!unwrapped(*other, "name", sealed));
        CHECK(!unwrapped(*codec, "name", header + data)); // a plain value
        CHECK(sealed != wrapped(*codec, "name", {header, data}));
    }
    CHECK(unwrapped(*codec, "name", wrapped(*codec, "name", {})) == "");
}

CASE(whoever_can_write_the_store_can_only_make_values_miss) {
    const auto        codec = sealed_by('f');
    const std::string header(200, 'h'), data(2 * SEAL_CHUNK_BYTES + 50, 'd');
    const std::string good  = wrapped(*codec, "name", {header, data});
    const auto        takes = [&](const std::string & value) { return unwrapped(*codec, "name", value).has_value(); };
    CHECK(takes(good));
    for (size_t at = 0; at < good.size(); at += at < 600 || at > good.size() - 100 ? 1 : 4999) {
        std::string changed = good;
        changed[at]         = (char) (changed[at] ^ 1);
        CHECK(!takes(changed));
        CHECK(!takes(good.substr(0, at)));
    }
    CHECK(!takes(good + "x") && !takes(good + good) && !takes(""));
    const size_t first = SEAL_HEAD_BYTES + header.size() + SEAL_TAG_BYTES, chunk = SEAL_CHUNK_BYTES + SEAL_TAG_BYTES;
    CHECK(!takes(good.substr(0, first)) && !takes(good.substr(0, first + chunk))); // cut off between chunks
    CHECK(!takes(good.substr(0, first) + good.substr(first + chunk, chunk) + good.substr(first, chunk) +
                 good.substr(first + 2 * chunk))); // swapped
    CHECK(!takes(good.substr(0, first) + good.substr(first + chunk))); // one left out
    const std::string other = wrapped(*codec, "name", {header, data}); // an older value of the same name
    CHECK(!takes(good.substr(0, first) + other.substr(first)));
    for (const uint32_t n : {0u, 1u, 199u, 201u, 200u + (uint32_t) chunk, 1u << 30, 0x7fffffffu, 0xffffffffu}) {
        std::string absurd = good;
        std::memcpy(&absurd[12], &n, sizeof(n));
        CHECK(!takes(absurd) && !takes(absurd.substr(0, SEAL_HEAD_BYTES)));
    }
    std::string later = good;
    later[8]          = 2;
    CHECK(!takes(later));
}

CASE(a_store_that_others_reach_needs_a_secret) {
    for (const char * near : {"", "localhost", "localhost:6379", "valkey://localhost:6379/0", "redis://user@127.0.0.1",
                              "127.8.9.1:1", "rediss://u:p@w@[::1]:6379", "::1", "file:///mnt/kv", "/run/valkey.sock",
                              "unix:///run/valkey.sock", "[::ffff:127.0.0.1]:1"}) {
        CHECK(needs_secret_warning(near).empty());
    }
    for (const char * far :
         {"valkey://store:6379", "10.0.0.1", "127.0.0.1.example.com", "valkey://127.0.0.1@store", "s3://bucket/path",
          "localhost.example", "[fd00::1]:6379", "0.0.0.0:1", "http://x#localhost"}) {
        CHECK(needs_secret_warning(far).find("--atlas-shared-secret-file") != std::string::npos);
    }
    CHECK(needs_secret_warning("valkey://ada:secret@store:6379").find("secret@") == std::string::npos);
}
