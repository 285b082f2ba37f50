#include "resp-reply.hpp"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <new>
#include <string>

namespace atlas::resp {

constexpr size_t    READ_BYTES     = 16 << 10; // at once, of replies and of a value's beginning
constexpr size_t    TURN_BYTES     = 4 << 20;
constexpr size_t    MAX_LINE_BYTES = 32; // of a value's length
constexpr size_t    N_END          = 2; // "\r\n"
constexpr long long MAX_ELEMENTS   = 1 << 16;
constexpr int       MAX_DEPTH      = 8;

bool reply::is_migrating() const {
    return is_error() && (text().substr(0, 4) == "ASK " || text().substr(0, 8) == "TRYAGAIN");
}

reply_reader::reply_reader(uint64_t max_value_bytes) : parser(valkeyReaderCreate()), max_value_bytes(max_value_bytes) {
    if (!parser) {
        throw std::bad_alloc();
    }
    parser->maxelements = MAX_ELEMENTS;
    parser->maxdepth    = MAX_DEPTH;
}

bool reply_reader::receive(const source & from) {
    for (size_t total = 0; total < TURN_BYTES;) {
        size_t n_read = 0;
        if (value) {
            const size_t missing = value_bytes + N_END - received;
            if (missing == 0) {
                return true; // next() has it
            }
            n_read = from(value.get() + received, missing);
            received += n_read;
        } else {
            char * buffer = nullptr;
            size_t room   = 0;
            if (valkeyReaderGetReadBuf(parser.get(), &buffer, &room, READ_BYTES) != VALKEY_OK) {
                throw std::bad_alloc();
            }
            n_read = from(buffer, std::min(room, READ_BYTES));
            valkeyReaderCommitRead(parser.get(), n_read);
            return n_read > 0; // it may be a value's beginning
        }
        if (n_read == 0) {
            return false;
        }
        total += n_read;
    }
    return true;
}

std::optional<reply> reply_reader::next() {
    if (value) {
        return end_value();
    }
    const std::string_view unread(parser->buf + parser->pos, parser->len - parser->pos);
    if (unread.empty()) {
        return std::nullopt; // the parser would begin a reply
    }
    if (parser->ridx < 0 && unread[0] == '$') {
        return begin_value(unread);
    }
    void * parsed = nullptr;
    if (valkeyReaderGetReply(parser.get(), &parsed) != VALKEY_OK) {
        if (parser->err == VALKEY_ERR_OOM) {
            throw std::bad_alloc();
        }
        throw tier_error(tier_failure::broken, std::string("what it answers is no RESP: ") + parser->errstr);
    }
    if (!parsed) {
        if (parser->len > MAX_REPLY_BYTES) {
            throw tier_error(tier_failure::broken, "it answers more than a reply can have");
        }
        return std::nullopt;
    }
    reply got;
    got.small.reset((valkeyReply *) parsed);
    return got;
}

std::optional<reply> reply_reader::begin_value(std::string_view unread) {
    const size_t end = unread.find("\r\n");
    if (end == std::string_view::npos ? unread.size() > MAX_LINE_BYTES : end > MAX_LINE_BYTES) {
        throw tier_error(tier_failure::broken, "what it answers is no RESP: a value without a length");
    }
    if (end == std::string_view::npos) {
        return std::nullopt;
    }
    const std::string_view digits = unread.substr(1, end - 1);
    if (digits == "-1") {
        parser->pos += end + N_END;
        return reply();
    }
    uint64_t   length = 0;
    const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), length);
    if (parsed.ec != std::errc() || parsed.ptr != digits.data() + digits.size()) {
        throw tier_error(tier_failure::broken, "what it answers is no RESP: a value without a length");
    }
    if (length > max_value_bytes) {
        throw tier_error(tier_failure::broken, "it answers with a value of " + std::to_string(length) +
                                                   " bytes, and none may have more than " +
                                                   std::to_string(max_value_bytes));
    }
    unread.remove_prefix(end + N_END);
    value.reset(new char[length + N_END]);
    value_bytes = length;
    received    = std::min(unread.size(), value_bytes + N_END);
    std::memcpy(value.get(), unread.data(), received);
    parser->pos += end + N_END + received;
    return end_value();
}

std::optional<reply> reply_reader::end_value() {
    if (received < value_bytes + N_END) {
        return std::nullopt;
    }
    if (std::memcmp(value.get() + value_bytes, "\r\n", N_END) != 0) {
        throw tier_error(tier_failure::broken, "what it answers is no RESP: a value with another length than it says");
    }
    reply got;
    got.value.bytes = {value.get(), value_bytes};
    got.value.owner = std::move(value);
    value           = nullptr;
    return got;
}

} // namespace atlas::resp
