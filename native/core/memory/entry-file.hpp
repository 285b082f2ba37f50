// The format of an entry's file: docs/memory-format.md. Bytes in, bytes out; it opens no file. Any thread.
#pragma once

#include "atlas-memory.hpp"
#include "atlas-seal.hpp"
#include "digest.hpp"

namespace atlas::memory {

constexpr size_t   MIN_BLOCK_TOKENS = 16;
constexpr size_t   MAX_TOKENS       = 1024;        // of one entry
constexpr uint64_t MAX_POSITION     = INT32_MAX;   // llama.cpp's positions are 32-bit integers
constexpr uint64_t MAX_DATA_BYTES   = 1ull << 40;  // of one entry; sums of them do not overflow

struct file_header {
    digest        key    = {};
    digest        parent = {};
    entry_kind    kind   = entry_kind::block;
    memory_tokens tokens;
    uint64_t      position      = 0; // how many tokens of the conversation come before; 0 also where that is not known
    uint64_t      data_bytes    = 0;
    uint64_t      data_checksum = 0;
};

// Whether an entry of that kind may have n_tokens tokens where blocks have block_tokens.
bool has_right_length(entry_kind kind, size_t n_tokens, size_t block_tokens);

// good; foreign: not a file of this format and version; damaged: such a file, but not as it was written.
enum class file_state { good, foreign, damaged };

constexpr size_t FIXED_HEADER_BYTES = 112;
constexpr size_t CHECKSUM_BYTES     = 8;

// What is before the data, and the whole file, in bytes.
constexpr size_t   header_bytes(size_t n_tokens) { return FIXED_HEADER_BYTES + 4 * n_tokens + CHECKSUM_BYTES; }
constexpr uint64_t file_bytes(size_t n_tokens, uint64_t data_bytes) { return header_bytes(n_tokens) + data_bytes; }
constexpr uint64_t sealed_file_bytes(size_t n_tokens, uint64_t data_bytes) {
    return sealed_bytes(header_bytes(n_tokens), data_bytes);
}

uint64_t checksum(const void * data, size_t n_bytes);

// The checksum of data that comes in pieces. Not copyable; about half a KiB.
class running_checksum {
  public:
    running_checksum();
    ~running_checksum();

    running_checksum(const running_checksum &)             = delete;
    running_checksum & operator=(const running_checksum &) = delete;

    void     add(const void * data, size_t n_bytes);
    uint64_t value() const;

  private:
    struct state;
    std::unique_ptr<state> self;
};

std::vector<uint8_t> encode_header(const file_header & header);

// Reads a header from the first n_bytes bytes of a file of file_size bytes; the caller gives header_bytes(MAX_TOKENS)
// of them, or the whole file. Fills in `header` only where the result is good; the data is not checked. A good header
// has a number of tokens and a position that some block size allows, and at most MAX_DATA_BYTES of data.
file_state decode_header(const uint8_t * bytes, size_t n_bytes, uint64_t file_size, file_header & header);

} // namespace atlas::memory
