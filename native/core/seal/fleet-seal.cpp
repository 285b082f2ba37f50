#include "fleet-seal.hpp"

#include <algorithm>
#include <cstring>

namespace atlas {

static uint64_t rest_bytes(const std::vector<std::string_view> & pieces) {
    uint64_t n = 0;
    for (size_t i = 1; i < pieces.size(); i++) {
        n += pieces[i].size();
    }
    return n;
}

uint64_t fleet_seal::wrapped_bytes(const std::vector<std::string_view> & pieces) {
    return sealed_bytes(pieces.empty() ? 0 : pieces.front().size(), rest_bytes(pieces));
}

void fleet_seal::wrap(std::string_view name, const std::vector<std::string_view> & pieces, uint8_t * to) const {
    const std::string_view first  = pieces.empty() ? std::string_view() : pieces.front();
    const uint64_t         n_rest = rest_bytes(pieces);
    auto                   chunks = with.begin(name, first.size());
    std::memcpy(to, chunks.head().data(), SEAL_HEAD_BYTES);
    to += SEAL_HEAD_BYTES;
    chunks.seal(0, n_rest == 0, reinterpret_cast<const uint8_t *>(first.data()), first.size(), to, to + first.size());
    to += first.size() + SEAL_TAG_BYTES;
    size_t piece = 1, at = 0;
    for (uint64_t number = 1, done = 0; done < n_rest; number++) {
        const size_t n = (size_t) std::min<uint64_t>(SEAL_CHUNK_BYTES, n_rest - done);
        for (size_t have = 0; have < n;) { // gathered, and sealed where it lies
            const size_t more = std::min(n - have, pieces[piece].size() - at);
            std::memcpy(to + have, pieces[piece].data() + at, more);
            have += more;
            at += more;
            if (at == pieces[piece].size()) {
                piece++;
                at = 0;
            }
        }
        done += n;
        chunks.seal(number, done == n_rest, to, n, to, to + n);
        to += n + SEAL_TAG_BYTES;
    }
}

struct fleet_seal::layout {
    uint64_t n_first;
    uint64_t n_rest;
    uint64_t n_chunks; // behind the first
};

// Of a value whose head is one of ours.
std::optional<fleet_seal::layout> fleet_seal::layout_of(std::string_view name, std::string_view value,
                                                        std::optional<sealed_chunks> & chunks) const {
    seal_head head;
    size_t    n_first = 0;
    if (value.size() < sealed_bytes(0)) {
        return std::nullopt;
    }
    std::memcpy(head.data(), value.data(), head.size());
    if (with.begin_reading(name, head, n_first, chunks) != unsealed::good || value.size() < sealed_bytes(n_first)) {
        return std::nullopt;
    }
    const auto rest = sealed_rest_of(value.size() - sealed_bytes(n_first));
    return rest ? std::optional(layout{n_first, rest->n_plain, rest->n_chunks}) : std::nullopt;
}

std::optional<uint64_t> fleet_seal::plain_bytes(std::string_view value) const {
    std::optional<sealed_chunks> chunks;
    const auto                   has = layout_of("", value, chunks);
    return has ? std::optional(has->n_first + has->n_rest) : std::nullopt;
}

bool fleet_seal::unwrap(std::string_view name, std::string_view value, uint8_t * to) const {
    std::optional<sealed_chunks> chunks;
    const auto                   has = layout_of(name, value, chunks);
    if (!has) {
        return false;
    }
    const auto * from = reinterpret_cast<const uint8_t *>(value.data()) + SEAL_HEAD_BYTES;
    uint64_t     left = has->n_rest;
    for (uint64_t number = 0; number <= has->n_chunks; number++) {
        const size_t n = (size_t) (number == 0 ? has->n_first : std::min<uint64_t>(SEAL_CHUNK_BYTES, left));
        if (n > 0) {
            std::memcpy(to, from, n);
        }
        if (!chunks->unseal(number, number == has->n_chunks, to, n, from + n)) {
            return false;
        }
        from += n + SEAL_TAG_BYTES;
        to += n;
        left -= number == 0 ? 0 : n;
    }
    return true;
}

} // namespace atlas
