#include "entry-file.hpp"

#include "hash/xxhash/xxhash.h"

#include <cstring>

namespace atlas::memory {

namespace {

constexpr char     MAGIC[8] = {'A', 'T', 'L', 'A', 'S', 'K', 'V', '\0'};
constexpr uint32_t VERSION  = 1;

// Offsets in the file.
enum offset : size_t {
    AT_MAGIC         = 0,
    AT_VERSION       = 8,
    AT_HEADER_BYTES  = 12,
    AT_KIND          = 16,
    AT_N_TOKENS      = 20,
    AT_POSITION      = 24,
    AT_DATA_BYTES    = 32,
    AT_DATA_CHECKSUM = 40,
    AT_KEY           = 48,
    AT_PARENT        = 80,
    AT_TOKENS        = FIXED_HEADER_BYTES,
};

// Little endian on every machine.
template <typename T> void put(uint8_t * to, T value) {
    for (size_t i = 0; i < sizeof(T); i++) {
        to[i] = (uint8_t) (value >> (8 * i));
    }
}

template <typename T> T get(const uint8_t * from) {
    T value = 0;
    for (size_t i = 0; i < sizeof(T); i++) {
        value |= (T) from[i] << (8 * i);
    }
    return value;
}

// Whether some block size allows the shape: other servers that share the directory may have another size than ours.
bool has_possible_shape(entry_kind kind, size_t n_tokens, uint64_t position) {
    for (size_t block_tokens = MIN_BLOCK_TOKENS; block_tokens <= MAX_TOKENS; block_tokens++) {
        if (has_right_length(kind, n_tokens, block_tokens) && position % block_tokens == 0) {
            return position <= MAX_POSITION;
        }
    }
    return false;
}

} // namespace

bool has_right_length(entry_kind kind, size_t n_tokens, size_t block_tokens) {
    switch (kind) {
        case entry_kind::block:      return n_tokens == block_tokens;
        case entry_kind::tail:       return n_tokens > 0 && n_tokens < block_tokens;
        case entry_kind::checkpoint: return n_tokens < block_tokens;
    }
    return false;
}

uint64_t checksum(const void * data, size_t n_bytes) { return XXH3_64bits(data, n_bytes); }

struct running_checksum::state {
    XXH3_state_t * const xxh = XXH3_createState();
    ~state() { XXH3_freeState(xxh); }
};

running_checksum::running_checksum() : self(std::make_unique<state>()) {
    if (!self->xxh) {
        throw std::bad_alloc();
    }
    XXH3_64bits_reset(self->xxh);
}
running_checksum::~running_checksum() = default;

void running_checksum::add(const void * data, size_t n_bytes) { XXH3_64bits_update(self->xxh, data, n_bytes); }

uint64_t running_checksum::value() const { return XXH3_64bits_digest(self->xxh); }

std::vector<uint8_t> encode_header(const file_header & header) {
    std::vector<uint8_t> bytes(header_bytes(header.tokens.size()));
    uint8_t *            to = bytes.data();
    std::memcpy(to + AT_MAGIC, MAGIC, sizeof(MAGIC));
    put<uint32_t>(to + AT_VERSION, VERSION);
    put<uint32_t>(to + AT_HEADER_BYTES, (uint32_t) bytes.size());
    put<uint32_t>(to + AT_KIND, (uint32_t) header.kind);
    put<uint32_t>(to + AT_N_TOKENS, (uint32_t) header.tokens.size());
    put<uint64_t>(to + AT_POSITION, header.position);
    put<uint64_t>(to + AT_DATA_BYTES, header.data_bytes);
    put<uint64_t>(to + AT_DATA_CHECKSUM, header.data_checksum);
    std::memcpy(to + AT_KEY, header.key.data(), header.key.size());
    std::memcpy(to + AT_PARENT, header.parent.data(), header.parent.size());
    to += AT_TOKENS;
    for (const int32_t token : header.tokens) {
        put<uint32_t>(to, (uint32_t) token);
        to += 4;
    }
    put<uint64_t>(to, checksum(bytes.data(), bytes.size() - CHECKSUM_BYTES));
    return bytes;
}

file_state decode_header(const uint8_t * bytes, size_t n_bytes, uint64_t file_size, file_header & header) {
    if (n_bytes < sizeof(MAGIC) || std::memcmp(bytes + AT_MAGIC, MAGIC, sizeof(MAGIC)) != 0) {
        return file_state::foreign;
    }
    if (n_bytes >= AT_HEADER_BYTES && get<uint32_t>(bytes + AT_VERSION) != VERSION) {
        return file_state::foreign;
    }
    if (n_bytes < header_bytes(0)) {
        return file_state::damaged;
    }
    const uint32_t n_tokens   = get<uint32_t>(bytes + AT_N_TOKENS);
    const uint32_t kind       = get<uint32_t>(bytes + AT_KIND);
    const uint64_t data_bytes = get<uint64_t>(bytes + AT_DATA_BYTES);
    if (n_tokens > MAX_TOKENS || kind > (uint32_t) entry_kind::checkpoint || n_bytes < header_bytes(n_tokens) ||
        get<uint32_t>(bytes + AT_HEADER_BYTES) != header_bytes(n_tokens) || data_bytes > MAX_DATA_BYTES ||
        file_bytes(n_tokens, data_bytes) != file_size ||
        !has_possible_shape((entry_kind) kind, n_tokens, get<uint64_t>(bytes + AT_POSITION))) {
        return file_state::damaged;
    }
    const size_t checked = header_bytes(n_tokens) - CHECKSUM_BYTES;
    if (get<uint64_t>(bytes + checked) != checksum(bytes, checked)) {
        return file_state::damaged;
    }
    header.kind          = (entry_kind) kind;
    header.position      = get<uint64_t>(bytes + AT_POSITION);
    header.data_bytes    = data_bytes;
    header.data_checksum = get<uint64_t>(bytes + AT_DATA_CHECKSUM);
    std::memcpy(header.key.data(), bytes + AT_KEY, header.key.size());
    std::memcpy(header.parent.data(), bytes + AT_PARENT, header.parent.size());
    header.tokens.resize(n_tokens);
    for (size_t i = 0; i < n_tokens; i++) {
        header.tokens[i] = (int32_t) get<uint32_t>(bytes + AT_TOKENS + 4 * i);
    }
    return file_state::good;
}

} // namespace atlas::memory
