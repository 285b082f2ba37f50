// Any bytes as the file of an entry, read as the store reads it. What is taken as good is good: written anew, it is the
// same file. Half of all inputs get the checksums that they need to come that far.
#include "directory.hpp"

#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>

using namespace atlas::memory;

static void require(bool holds) {
    if (!holds) {
        std::abort();
    }
}

static void put_checksum(std::vector<uint8_t> & file, size_t at, uint64_t sum) {
    for (int i = 0; i < 8; i++) {
        file[at + i] = (uint8_t) (sum >> (8 * i));
    }
}

// Where the checksums stand: docs/memory-format.md.
static void make_checksums_right(std::vector<uint8_t> & file) {
    constexpr size_t AT_N_TOKENS = 20, AT_DATA_CHECKSUM = 40;
    if (file.size() < header_bytes(0)) {
        return;
    }
    uint16_t n_tokens = 0;
    std::memcpy(&n_tokens, file.data() + AT_N_TOKENS, sizeof(n_tokens));
    const size_t begin = header_bytes(n_tokens);
    if (file.size() >= begin) {
        put_checksum(file, AT_DATA_CHECKSUM, checksum(file.data() + begin, file.size() - begin));
        const size_t at = begin - CHECKSUM_BYTES;
        put_checksum(file, at, checksum(file.data(), at));
    }
}

static void check_good(const std::vector<uint8_t> & file, const file_header & header, const atlas::state_bytes & data) {
    require(header.tokens.size() <= MAX_TOKENS && header.data_bytes == data.size());
    std::vector<uint8_t> again = encode_header(header);
    again.insert(again.end(), data.begin(), data.end());
    require(again == file);
}

// A file of this process, removed at its end.
struct scratch_file {
    std::string path = std::filesystem::temp_directory_path() / "atlas-fuzz-XXXXXX";
    const int   fd   = ::mkstemp(path.data());
    ~scratch_file() { ::unlink(path.c_str()); }
};

static void read(const std::vector<uint8_t> & file) {
    static const scratch_file scratch;
    require(::ftruncate(scratch.fd, 0) == 0);
    require(::pwrite(scratch.fd, file.data(), file.size(), 0) == (ssize_t) file.size());
    file_header        header;
    file_facts         facts;
    atlas::state_bytes data;
    const auto         result = read_file(scratch.path, header, facts, &data);
    require(facts.bytes == file.size());
    if (result == read_result::good) {
        check_good(file, header, data);
    } else {
        require(result == read_result::foreign || result == read_result::damaged);
    }
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t * bytes, size_t n_bytes) {
    std::vector<uint8_t> file(bytes, bytes + n_bytes);
    read(file);
    make_checksums_right(file);
    read(file);
    return 0;
}
