#include "cases.hpp"
#include "shared-codec.hpp"

#include <cstring>

using namespace atlas;

static std::unique_ptr<shared_codec> sealed_by(char c) {
    std::array<uint8_t, SECRET_BYTES> bytes = {};
    bytes[0]                                = (uint8_t) c;
    return make_sealed_codec(secret_key(bytes));
}

static std::string text_of(const std::vector<std::string_view> & pieces) {
    std::string text;
    for (const auto & piece : pieces) {
        text += piece;
    }
    return text;
}

static const std::string ROOT(64, 'a'), OTHER_ROOT(64, 'b'), KEY(64, '1'), OTHER_KEY(64, '2');

CASE(a_plain_codec_leaves_all_as_it_is) {
    const auto  codec = make_plain_codec();
    state_bytes scratch;
    CHECK(codec->name_of(ROOT, KEY) == "atlas:1:" + ROOT.substr(0, 16) + ":" + KEY);
    CHECK(text_of(codec->wrap("name", {"header", "da", "ta"}, scratch)) == "headerdata" && scratch.empty());
    CHECK(codec->unwrap("name", "headerdata", scratch) == "headerdata" && scratch.empty());
    CHECK(codec->extra_bytes(6, 10) == 0);
}

CASE(names_tell_nothing_and_are_the_same_on_all_servers_of_a_fleet) {
    const auto        codec = sealed_by('f'), same = sealed_by('f'), other = sealed_by('g');
    const std::string name = codec->name_of(ROOT, KEY);
    CHECK(name == same->name_of(ROOT, KEY) && name != other->name_of(ROOT, KEY));
    CHECK(name.size() == make_plain_codec()->name_of(ROOT, KEY).size() && name.rfind("atlas:1:", 0) == 0);
    CHECK(name.find(KEY.substr(0, 8)) == std::string::npos && name.find(ROOT.substr(0, 8)) == std::string::npos);
    CHECK(name.substr(0, 24) == codec->name_of(ROOT, OTHER_KEY).substr(0, 24)); // one root, one beginning
    CHECK(name.substr(0, 24) != codec->name_of(OTHER_ROOT, KEY).substr(0, 24));
    CHECK(codec->name_of(KEY, ROOT) != name);
}

CASE(a_value_comes_back_under_its_name_with_its_secret_only) {
    const auto  codec = sealed_by('f'), other = sealed_by('g');
    state_bytes scratch, back;
    for (const size_t n : {(size_t) 0, (size_t) 1, SEAL_CHUNK_BYTES - 1, SEAL_CHUNK_BYTES, SEAL_CHUNK_BYTES + 1,
                           2 * SEAL_CHUNK_BYTES, 3 * SEAL_CHUNK_BYTES + 100}) {
        std::string header(1144, 'h'), data(n, 'd');
        for (size_t i = 0; i < n; i++) {
            data[i] = (char) (i * 7 + i / 251);
        }
        const std::string_view all = data;
        const auto             wrapped =
            text_of(codec->wrap("name", {header, all.substr(0, n / 3), "", all.substr(n / 3)}, scratch));
        CHECK(wrapped.size() == header.size() + n + codec->extra_bytes(header.size(), header.size() + n));
        CHECK(wrapped.find(std::string(64, 'h')) == std::string::npos);
        CHECK(codec->unwrap("name", wrapped, back) == header + data);
        CHECK(!codec->unwrap("other name", wrapped, back)); // stored anew under another name
        CHECK(!other->unwrap("name", wrapped, back));
        CHECK(!codec->unwrap("name", header + data, back)); // a plain value
        CHECK(wrapped != text_of(codec->wrap("name", {header, data}, scratch)));
    }
    CHECK(codec->unwrap("name", text_of(codec->wrap("name", {}, scratch)), back) == "");
}

CASE(whoever_can_write_the_store_can_only_make_values_miss) {
    const auto        codec = sealed_by('f');
    state_bytes       scratch, back;
    const std::string header(200, 'h'), data(2 * SEAL_CHUNK_BYTES + 50, 'd');
    const std::string good = text_of(codec->wrap("name", {header, data}, scratch));
    for (size_t at = 0; at < good.size(); at += at < 600 || at > good.size() - 100 ? 1 : 4999) {
        std::string changed = good;
        changed[at]         = (char) (changed[at] ^ 1);
        CHECK(!codec->unwrap("name", changed, back));
        CHECK(!codec->unwrap("name", good.substr(0, at), back));
    }
    CHECK(!codec->unwrap("name", good + "x", back) && !codec->unwrap("name", good + good, back));
    const size_t first = SEAL_HEAD_BYTES + header.size() + SEAL_TAG_BYTES, chunk = SEAL_CHUNK_BYTES + SEAL_TAG_BYTES;
    CHECK(!codec->unwrap("name", good.substr(0, first), back)); // cut off between chunks
    CHECK(!codec->unwrap("name", good.substr(0, first + chunk), back));
    CHECK(!codec->unwrap("name",
                         good.substr(0, first) + good.substr(first + chunk, chunk) + good.substr(first, chunk) +
                             good.substr(first + 2 * chunk),
                         back)); // swapped
    CHECK(!codec->unwrap("name", good.substr(0, first) + good.substr(first + chunk), back)); // one left out
    const std::string other = text_of(codec->wrap("name", {header, data}, scratch)); // an older value of the same name
    CHECK(!codec->unwrap("name", good.substr(0, first) + other.substr(first), back));
    for (const uint32_t n : {0u, 1u, 199u, 201u, 200u + (uint32_t) chunk, 1u << 30, 0x7fffffffu, 0xffffffffu}) {
        std::string absurd = good;
        std::memcpy(&absurd[12], &n, sizeof(n));
        CHECK(!codec->unwrap("name", absurd, back));
        CHECK(!codec->unwrap("name", absurd.substr(0, SEAL_HEAD_BYTES), back));
    }
    std::string later = good;
    later[8]          = 2;
    CHECK(!codec->unwrap("name", later, back) && !codec->unwrap("name", "", back));
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
