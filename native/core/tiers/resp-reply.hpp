// Reads a RESP server's replies: libvalkey's parser for all but values, which go straight into room of their own.
#pragma once

#include "atlas-tier.hpp"

#include <valkey/valkey.h>

#include <functional>
#include <memory>
#include <optional>
#include <string_view>

namespace atlas::resp {

struct reply_deleter {
    void operator()(valkeyReply * reply) const { freeReplyObject(reply); }
};

struct reply {
    std::unique_ptr<valkeyReply, reply_deleter> small; // null: a value, or none
    tier_value                                  value; // its owner is null: there is none

    bool             is_error() const { return small && small->type == VALKEY_REPLY_ERROR; }
    bool             is_integer() const { return small && small->type == VALKEY_REPLY_INTEGER; }
    bool             is_status() const { return small && small->type == VALKEY_REPLY_STATUS; }
    bool             is_array() const { return small && small->type == VALKEY_REPLY_ARRAY; }
    std::string_view text() const { return {small->str, small->len}; } // of an error or a status

    // Whether a cluster moves the key to another server just now. To ask there needs a command of its own, for the short time
    // until it is there: such a key counts as one that is not there.
    bool is_migrating() const;
};

// One thread at a time. The bytes are hostile: what they take is bounded by MAX_REPLY_BYTES and max_value_bytes, and a
// value's room by what it says its length is, which has to be within max_value_bytes. Its pages are touched as bytes come.
class reply_reader {
  public:
    static constexpr size_t MAX_REPLY_BYTES = 1 << 20; // of replies that are no value

    // Puts up to so many bytes there and returns how many; 0: no more are there now. Throws tier_error.
    using source = std::function<size_t(char * buffer, size_t n_bytes)>;

    // Throws std::bad_alloc.
    explicit reply_reader(uint64_t max_value_bytes);

    // The limit of values that begin from now on.
    void limit(uint64_t max_bytes) { max_value_bytes = max_bytes; }

    // Takes what the source has, up to a few MiB. Returns whether it may have more now. Throws what the source throws, and
    // std::bad_alloc.
    bool receive(const source & from);

    // Whether there are bytes that belong to no reply that next() returned.
    bool has_rest() const { return value || parser->len > parser->pos || parser->ridx >= 0; }

    // Whether a value has begun.
    bool is_in_value() const { return value != nullptr; }

    // The next reply that is there as a whole. Throws tier_error (broken), without an address, and std::bad_alloc.
    std::optional<reply> next();

  private:
    std::optional<reply> begin_value(std::string_view unread);
    std::optional<reply> end_value();

    struct parser_deleter {
        void operator()(valkeyReader * parser) const { valkeyReaderFree(parser); }
    };

    const std::unique_ptr<valkeyReader, parser_deleter> parser;

    uint64_t                max_value_bytes;
    std::shared_ptr<char[]> value; // the one that is being read, with the line end behind it
    size_t                  value_bytes = 0, received = 0; // of it
};

} // namespace atlas::resp
