// Any bytes as a sealed value: as the file of an entry, as a value of a store that others can write to, and as a row. As they
// come none is good. Sealed by us, with any first chunk, they come as far as the header behind it: what is taken as good then
// is what was sealed.
#include "directory.hpp"
#include "fleet-seal.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>

using namespace atlas;
using namespace atlas::memory;

static void require(bool holds) {
    if (!holds) {
        std::abort();
    }
}

// A file of this process, removed at its end.
struct scratch_file {
    std::string path = std::filesystem::temp_directory_path() / "atlas-fuzz-XXXXXX";
    const int   fd   = ::mkstemp(path.data());
    ~scratch_file() { ::unlink(path.c_str()); }

    std::string name() const { return std::filesystem::path(path).filename(); }
    void        write(std::string_view bytes) const {
        require(::ftruncate(fd, 0) == 0);
        require(::pwrite(fd, bytes.data(), bytes.size(), 0) == (ssize_t) bytes.size());
    }
};

struct parts {
    scratch_file file;
    secret_key   secret{std::array<uint8_t, SECRET_BYTES>{1, 2, 3}};
    sealer       seal{secret, "at rest"};
    fleet_seal   shared{secret};
};

static read_result read(const parts & with, file_header & header, state_bytes & data) {
    file_facts facts;
    return read_file(with.file.path, header, facts, &data, &with.seal);
}

static void as_they_come(const parts & with, std::string_view bytes) {
    state_bytes scratch, data;
    std::string plain;
    file_header header;
    const auto  n_plain = with.shared.plain_bytes(bytes);
    require(!n_plain || *n_plain <= bytes.size());
    scratch.resize(n_plain.value_or(0));
    require(!with.shared.unwrap("name", bytes, scratch.data()));
    require(with.seal.unseal("name", bytes, plain) != unsealed::good);
    with.file.write(bytes);
    read(with, header, data); // may be a plain file, which is good
}

// With the head of a value of ours, whose tags cannot be right.
static void behind_our_head(const parts & with, std::string_view bytes) {
    const auto        head = with.seal.begin(with.file.name(), bytes.size() % 300).head();
    const std::string value =
        std::string(reinterpret_cast<const char *>(head.data()), head.size()) + std::string(bytes);
    file_header header;
    state_bytes data;
    std::string plain;
    with.file.write(value);
    require(read(with, header, data) != read_result::good);
    require(with.seal.unseal(with.file.name(), value, plain) != unsealed::good);
}

static void sealed_by_us(const parts & with, std::string_view bytes, size_t n_first) {
    state_bytes            scratch, back;
    const std::string_view first = bytes.substr(0, n_first), rest = bytes.substr(n_first);
    scratch.resize(fleet_seal::wrapped_bytes({first, rest}));
    with.shared.wrap("name", {first, rest}, scratch.data());
    const std::string_view wrapped(reinterpret_cast<const char *>(scratch.data()), scratch.size());
    require(with.shared.plain_bytes(wrapped) == bytes.size());
    back.resize(bytes.size());
    require(with.shared.unwrap("name", wrapped, back.data()) &&
            std::equal(back.begin(), back.end(), bytes.begin(), [](uint8_t a, char b) { return a == (uint8_t) b; }));

    auto        chunks = with.seal.begin(with.file.name(), first.size());
    std::string value(sealed_bytes(first.size(), rest.size()), '\0');
    auto *      to = reinterpret_cast<uint8_t *>(value.data());
    std::memcpy(to, chunks.head().data(), SEAL_HEAD_BYTES);
    to += SEAL_HEAD_BYTES;
    const auto put = [&](uint64_t number, bool is_last, std::string_view part) {
        chunks.seal(number, is_last, reinterpret_cast<const uint8_t *>(part.data()), part.size(), to, to + part.size());
        to += part.size() + SEAL_TAG_BYTES;
    };
    put(0, rest.empty(), first);
    for (uint64_t number = 1, at = 0; at < rest.size(); number++, at += SEAL_CHUNK_BYTES) {
        const auto part = rest.substr(at, SEAL_CHUNK_BYTES);
        put(number, at + part.size() == rest.size(), part);
    }
    file_header header;
    state_bytes data;
    with.file.write(value);
    if (read(with, header, data) == read_result::good) {
        const auto again = encode_header(header);
        require(again.size() == first.size() && std::memcmp(again.data(), first.data(), again.size()) == 0);
        require(data.size() == rest.size() &&
                (rest.empty() || std::memcmp(data.data(), rest.data(), rest.size()) == 0));
    }
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t * bytes, size_t n_bytes) {
    static const parts     with;
    const std::string_view all(reinterpret_cast<const char *>(bytes), n_bytes);
    as_they_come(with, all);
    behind_our_head(with, all);
    uint16_t n_tokens = 0;
    if (n_bytes > 24) {
        std::memcpy(&n_tokens, bytes + 20, sizeof(n_tokens)); // where a header says how long it is
    }
    sealed_by_us(with, all, std::min(n_bytes, header_bytes(n_tokens)));
    sealed_by_us(with, all, n_bytes / 2);
    return 0;
}
