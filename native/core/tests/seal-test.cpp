#include "atlas-seal.hpp"
#include "cases.hpp"

#include <cstring>
#include <set>
#include <vector>

using namespace atlas;

static secret_key key_of(char c) {
    std::array<uint8_t, SECRET_BYTES> bytes = {};
    bytes[0]                                = (uint8_t) c;
    return secret_key(bytes);
}

static std::string hex(const uint8_t * bytes, size_t n) {
    std::string text;
    for (size_t i = 0; i < n; i++) {
        char two[3];
        std::snprintf(two, sizeof(two), "%02x", bytes[i]);
        text += two;
    }
    return text;
}

CASE(what_is_sealed_is_had_back_by_its_name_only) {
    const sealer alice(key_of('a'), "test"), other(key_of('b'), "test"), use(key_of('a'), "other");
    for (const size_t n : {0, 1, 15, 16, 17, 4096, 1 << 20}) {
        const std::string text(n, 't');
        const std::string sealed = alice.seal("name", text);
        CHECK(sealed.size() == sealed_bytes(n) && begins_sealed(sealed.data(), sealed.size()));
        CHECK(n < 15 || sealed.find(text) == std::string::npos);
        std::string back = "before";
        CHECK(alice.unseal("name", sealed, back) == unsealed::good && back == text);
        CHECK(alice.unseal("another", sealed, back) == unsealed::damaged && back.empty());
        CHECK(alice.unseal("", sealed, back) == unsealed::damaged);
        CHECK(other.unseal("name", sealed, back) == unsealed::foreign);
        CHECK(use.unseal("name", sealed, back) == unsealed::foreign);
        CHECK(alice.unseal("name", text, back) == unsealed::foreign);
    }
}

CASE(nothing_that_was_changed_is_taken) {
    const sealer      with(key_of('a'), "test");
    const std::string sealed = with.seal("name", "the parrot is called Tovi");
    std::string       back;
    for (size_t at = 0; at < sealed.size(); at++) {
        for (const int bit : {0, 3, 7}) {
            std::string changed = sealed;
            changed[at]         = (char) (changed[at] ^ (1 << bit));
            CHECK(with.unseal("name", changed, back) != unsealed::good);
        }
        CHECK(with.unseal("name", sealed.substr(0, at), back) != unsealed::good);
    }
    CHECK(with.unseal("name", sealed + '\0', back) == unsealed::damaged);
    for (const uint32_t n : {0u, 24u, 26u, 1u << 30, (1u << 30) + 1, 0x7fffffffu, 0xffffffffu}) {
        std::string changed = sealed;
        std::memcpy(&changed[12], &n, sizeof(n));
        CHECK(with.unseal("name", changed, back) == unsealed::damaged);
    }
    std::string later = sealed;
    later[8]          = 2; // another version
    CHECK(with.unseal("name", later, back) == unsealed::foreign);
}

CASE(chunks_are_neither_swapped_nor_left_out) {
    const sealer                      with(key_of('a'), "test");
    auto                              chunks = with.begin("name", 3);
    std::vector<std::vector<uint8_t>> text = {{1, 2, 3}, std::vector<uint8_t>(1000, 4), std::vector<uint8_t>(1000, 4)};
    std::vector<std::vector<uint8_t>> sealed = text;
    seal_tag                          tags[3];
    for (size_t i = 0; i < 3; i++) {
        chunks.seal(i, i == 2, text[i].data(), text[i].size(), sealed[i].data(), tags[i].data());
        CHECK(sealed[i] != text[i]);
    }
    CHECK(sealed[1] != sealed[2]);
    size_t                       n_first = 0;
    std::optional<sealed_chunks> reading;
    CHECK(with.begin_reading("name", chunks.head(), n_first, reading) == unsealed::good && n_first == 3);
    const auto reads = [&](size_t number, bool is_last, size_t which) {
        auto bytes = sealed[which];
        return reading->unseal(number, is_last, bytes.data(), bytes.size(), tags[which].data()) && bytes == text[which];
    };
    CHECK(reads(2, true, 2) && reads(0, false, 0) && reads(1, false, 1)); // in any order
    CHECK(!reads(1, true, 1)); // cut off behind it
    CHECK(!reads(2, false, 2)); // something added behind it
    CHECK(!reads(2, true, 1) && !reads(1, false, 2) && !reads(0, false, 1));
    const auto again = with.begin("name", 3); // chunks of another value of the same name
    CHECK(with.begin_reading("name", again.head(), n_first, reading) == unsealed::good);
    CHECK(!reads(0, false, 0) && !reads(1, false, 1));
}

CASE(salts_differ_so_that_equal_values_do) {
    const sealer          with(key_of('a'), "test");
    std::set<std::string> seen;
    for (int i = 0; i < 1000; i++) {
        CHECK(seen.insert(with.seal("name", "same")).second);
    }
}

CASE(names_and_keys_are_of_one_use_and_one_secret) {
    const sealer a(key_of('a'), "one"), again(key_of('a'), "one"), use(key_of('a'), "two"), b(key_of('b'), "one");
    std::set<std::string> seen;
    for (const sealer * each : {&a, &use, &b}) {
        const auto name = each->name_of("text");
        CHECK(seen.insert(hex(name.data(), name.size())).second);
    }
    CHECK(a.name_of("text") == again.name_of("text") && a.name_of("text") != a.name_of("texts"));
    for (const char c : {'a', 'b'}) {
        for (const char * each : {"one", "tenants", ""}) {
            const auto key = derive_key(key_of(c), each);
            CHECK(seen.insert(hex(key.data(), SECRET_BYTES)).second);
            CHECK(key.text() == derive_key(key_of(c), each).text());
        }
    }
}

// Made by Python's cryptography package from what docs/memory-format.md says (see ADR 51), so that the format stays.
CASE(the_format_is_as_documented) {
    std::array<uint8_t, SECRET_BYTES> bytes;
    for (size_t i = 0; i < bytes.size(); i++) {
        bytes[i] = (uint8_t) i;
    }
    const sealer      with(secret_key(bytes), "at rest");
    static const char SEALED[] = "41544c415345414c01000000040000006c4b1af58950f648727160bff00c41286465666768696a6b6c6d6"
                                 "e6f707172737475767778797a7b7c7d7e7f8081828383184a8ed3d0a72a25c93f863662c844be51cbc8";
    std::string       sealed;
    for (size_t i = 0; SEALED[i]; i += 2) {
        sealed += (char) std::stoi(std::string(SEALED + i, 2), nullptr, 16);
    }
    std::string back;
    CHECK(with.unseal("name", sealed, back) == unsealed::good && back == "Tovi");
    const auto name = with.name_of("text");
    CHECK(hex(name.data(), name.size()) == "7a328eb5974f96395171e4edc0f14618acddfdc0563779dbea8ad9f2167b15e7");
}

CASE(secrets_are_compared_and_wiped) {
    uint8_t some[] = {1, 2, 3}, other[] = {1, 2, 3};
    CHECK(is_equal_secret(some, other, 3));
    other[2] = 4;
    CHECK(!is_equal_secret(some, other, 3) && is_equal_secret(some, other, 2));
    wipe(some, 3);
    CHECK(some[0] == 0 && some[1] == 0 && some[2] == 0);
}
