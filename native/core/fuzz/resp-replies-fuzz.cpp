// Any bytes as what a RESP server answers, which come in pieces as the first byte says. What is read is within the limits, the
// same however it came, and after an error there is nothing more.
#include "resp-reply.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>

using namespace atlas::resp;

static constexpr uint64_t MAX_VALUE_BYTES = 4096;

static void require(bool holds) {
    if (!holds) {
        std::abort();
    }
}

static void append(std::string & seen, const valkeyReply & reply) {
    seen += std::to_string(reply.type) + "," + std::to_string(reply.integer) + "," +
            std::string(reply.str ? reply.str : "", reply.len) + ";";
    for (size_t i = 0; i < reply.elements; i++) {
        append(seen, *reply.element[i]);
    }
}

// All replies, as text; "!" where an error ends them.
static std::string read(const char * bytes, size_t n_bytes, size_t step) {
    reply_reader reader(MAX_VALUE_BYTES);
    std::string  seen;
    size_t       at = 0, left_of_step = 0;
    try {
        for (bool may_have_more = true;;) {
            if (const auto got = reader.next()) {
                require(got->value.bytes.size() <= MAX_VALUE_BYTES && !(got->small && got->value.owner));
                if (got->small) {
                    append(seen, *got->small);
                }
                seen += got->value.owner ? "$" + std::string(got->value.bytes) : "nil";
                continue;
            }
            if (at == n_bytes && !may_have_more) {
                return seen;
            }
            left_of_step  = step;
            may_have_more = reader.receive([&](char * buffer, size_t room) {
                const size_t n = std::min({room, n_bytes - at, left_of_step});
                std::memcpy(buffer, bytes + at, n);
                at += n;
                left_of_step -= n;
                return n;
            });
        }
    } catch (const atlas::tier_error & error) {
        require(error.kind == atlas::tier_failure::broken);
        return seen + "!";
    }
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t * bytes, size_t n_bytes) {
    if (n_bytes > 0) {
        const char * const replies = (const char *) bytes + 1;
        require(read(replies, n_bytes - 1, 1 + bytes[0]) == read(replies, n_bytes - 1, SIZE_MAX));
    }
    return 0;
}
