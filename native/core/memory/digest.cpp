#include "digest.hpp"

namespace atlas::memory {

static int digit_value(char c) {
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

std::optional<digest> digest_from_hex(const std::string & text) {
    digest key;
    if (text.size() != 2 * key.size()) {
        return std::nullopt;
    }
    for (size_t i = 0; i < key.size(); i++) {
        const int high = digit_value(text[2 * i]);
        const int low  = digit_value(text[2 * i + 1]);
        if (high < 0 || low < 0) {
            return std::nullopt;
        }
        key[i] = (uint8_t) (high << 4 | low);
    }
    return key;
}

std::string digest_hex(const digest & key) {
    static const char DIGITS[] = "0123456789abcdef";
    std::string       text;
    text.reserve(2 * key.size());
    for (const uint8_t byte : key) {
        text += DIGITS[byte >> 4];
        text += DIGITS[byte & 15];
    }
    return text;
}

} // namespace atlas::memory
