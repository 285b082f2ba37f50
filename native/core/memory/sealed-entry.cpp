#include "sealed-entry.hpp"

#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

namespace atlas::memory {

static constexpr size_t WITH_TAG = SEAL_CHUNK_BYTES + SEAL_TAG_BYTES;

uint64_t write_sealed(const sealer & seal, const std::string & name, file_header header, const state_bytes & data,
                      const write_at & write, const std::function<void()> & rest) {
    const size_t         n_first  = header_bytes(header.tokens.size());
    auto                 chunks   = seal.begin(name, n_first);
    const uint64_t       begin    = sealed_bytes(n_first);
    const size_t         at_once  = std::max<size_t>(1, WRITE_PIECE / SEAL_CHUNK_BYTES);
    const size_t         n_chunks = (data.size() + SEAL_CHUNK_BYTES - 1) / SEAL_CHUNK_BYTES;
    std::vector<uint8_t> piece(std::min(at_once, n_chunks) * WITH_TAG);
    running_checksum     sum;
    for (size_t chunk = 0; chunk < n_chunks;) {
        const uint64_t offset = begin + chunk * WITH_TAG;
        uint8_t *      to     = piece.data();
        for (const size_t end = std::min(chunk + at_once, n_chunks); chunk < end; chunk++) {
            const uint8_t * from = data.data() + chunk * SEAL_CHUNK_BYTES;
            const size_t    n    = std::min(SEAL_CHUNK_BYTES, data.size() - chunk * SEAL_CHUNK_BYTES);
            sum.add(from, n);
            chunks.seal(chunk + 1, chunk + 1 == n_chunks, from, n, to, to + n);
            to += n + SEAL_TAG_BYTES;
        }
        write(piece.data(), (size_t) (to - piece.data()), offset);
        rest();
    }
    header.data_bytes          = data.size();
    header.data_checksum       = sum.value();
    const auto           plain = encode_header(header);
    std::vector<uint8_t> start(begin);
    std::memcpy(start.data(), chunks.head().data(), SEAL_HEAD_BYTES);
    uint8_t * const to = start.data() + SEAL_HEAD_BYTES;
    chunks.seal(0, n_chunks == 0, plain.data(), plain.size(), to, to + plain.size());
    write(start.data(), start.size(), 0);
    return sealed_file_bytes(header.tokens.size(), data.size());
}

// Returns how many bytes there were, or -1.
static ssize_t read_fully(int fd, uint8_t * to, size_t n_bytes, uint8_t * tag, uint64_t offset) {
    const size_t wanted = n_bytes + SEAL_TAG_BYTES;
    for (size_t done = 0; done < wanted;) {
        const size_t  n_tag    = done < n_bytes ? SEAL_TAG_BYTES : wanted - done;
        const iovec   parts[2] = {{to + std::min(done, n_bytes), n_bytes - std::min(done, n_bytes)},
                                  {tag + SEAL_TAG_BYTES - n_tag, n_tag}};
        const ssize_t n        = ::preadv(fd, parts, 2, (off_t) (offset + done));
        if (n < 0 && errno != EINTR) {
            return -1;
        }
        if (n == 0) {
            return (ssize_t) done;
        }
        done += n > 0 ? (size_t) n : 0;
    }
    return (ssize_t) wanted;
}

// Chunk by chunk, each unsealed where it lies while it is in the processor's cache.
static read_result read_data(sealed_chunks & chunks, int fd, uint64_t begin, file_facts & facts, state_bytes & data) {
    seal_tag tag;
    uint64_t number = 1;
    for (size_t done = 0; done < data.size(); number++) {
        const size_t  n    = std::min(SEAL_CHUNK_BYTES, data.size() - done);
        const ssize_t have = read_fully(fd, data.data() + done, n, tag.data(), begin + (number - 1) * WITH_TAG);
        if (have < 0) {
            facts.error = errno;
            return read_result::failed;
        }
        if ((size_t) have != n + tag.size() ||
            !chunks.unseal(number, done + n == data.size(), data.data() + done, n, tag.data())) {
            return read_result::damaged;
        }
        done += n;
    }
    return read_result::good;
}

read_result read_sealed(const sealer & seal, int fd, const std::string & name, file_facts & facts, file_header & header,
                        state_bytes * data) {
    constexpr size_t             MAX_FIRST = header_bytes(MAX_TOKENS);
    seal_head                    head;
    seal_tag                     tag;
    uint8_t                      first[MAX_FIRST];
    size_t                       n_first = 0;
    std::optional<sealed_chunks> chunks;
    ssize_t                      n = ::pread(fd, head.data(), head.size(), 0);
    if (n >= 0 && (size_t) n < head.size()) {
        return read_result::damaged;
    }
    if (n >= 0) {
        switch (seal.begin_reading(name, head, n_first, chunks)) {
            case unsealed::foreign: return read_result::foreign;
            case unsealed::damaged: return read_result::damaged;
            case unsealed::good:    break;
        }
        if (n_first > MAX_FIRST || facts.bytes < sealed_bytes(n_first)) {
            return read_result::damaged;
        }
        n = read_fully(fd, first, n_first, tag.data(), SEAL_HEAD_BYTES);
    }
    if (n < 0) {
        facts.error = errno;
        return read_result::failed;
    }
    const uint64_t begin = sealed_bytes(n_first);
    const auto     rest  = sealed_rest_of(facts.bytes - begin);
    if (!rest || (size_t) n != n_first + tag.size() ||
        !chunks->unseal(0, rest->n_chunks == 0, first, n_first, tag.data()) ||
        decode_header(first, n_first, n_first + rest->n_plain, header) != file_state::good) {
        return read_result::damaged;
    }
    if (!data) {
        return read_result::good;
    }
    data->resize(header.data_bytes);
    return read_data(*chunks, fd, begin, facts, *data);
}

} // namespace atlas::memory
