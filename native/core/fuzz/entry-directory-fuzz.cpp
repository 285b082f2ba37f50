// A directory of files each of which is valid by itself, and says of itself what an attacker likes: through the indexer,
// the catalog and find(). The books agree, whatever is found is what was asked for, and what belongs to none of our
// conversations is given up like all else.
#include "catalog-audit.hpp"
#include "indexer.hpp"
#include "memory-test.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

namespace fs = std::filesystem;
using namespace atlas::memory;
using namespace memory_test;

namespace {

struct input {
    const uint8_t * bytes;
    size_t          n_bytes;

    bool    is_empty() const { return n_bytes == 0; }
    uint8_t next() { return is_empty() ? 0 : (n_bytes--, *bytes++); }
    size_t  below(size_t n) { return next() % n; }
};

// Of this process, removed at its end.
struct scratch_directory {
    std::string path = fs::temp_directory_path() / "atlas-fuzz-XXXXXX";
    scratch_directory() { CHECK(::mkdtemp(path.data())); }
    ~scratch_directory() { fs::remove_all(path); }
};

// The tokens of all entries begin alike, so that they are often in each other's way.
memory_tokens tokens_of(input & from, size_t n) {
    memory_tokens tokens(n, 1);
    if (n > 0 && from.below(2)) {
        tokens[from.below(n)] = (int32_t) from.below(3);
    }
    return tokens;
}

size_t some_length(input & from) {
    constexpr size_t LENGTHS[] = {0, 1, 2, 5, 15, 16, 17, 31, 32, 33, 48, 64, 1023, 1024};
    return LENGTHS[from.below(std::size(LENGTHS))];
}

uint64_t some_position(input & from) {
    constexpr uint64_t POSITIONS[] = {0, 0, 0, 16, 16, 32, 48, 1024, 16 * 1023, MAX_POSITION - 15, 1ull << 63, 7};
    return POSITIONS[from.below(std::size(POSITIONS))];
}

// Whether the file is of a shape that there can be is for the reader to say.
std::string write_some_file(input & from, const std::string & dir, const std::vector<std::string> & parents) {
    file_header header;
    header.kind           = (entry_kind) from.below(3);
    header.parent         = *digest_from_hex(parents[from.below(parents.size())]);
    header.tokens         = tokens_of(from, some_length(from));
    header.position       = some_position(from);
    const std::string key = write_file(dir, header, from.below(4) * 100);

    constexpr time_t TIMES[]  = {0, -1, 1, 1700000000, 4611686018, 9223372036, 253402300799};
    const timespec   times[2] = {{0, UTIME_NOW}, {TIMES[from.below(std::size(TIMES))], 0}};
    ::utimensat(AT_FDCWD, file_of(dir, key).c_str(), times, 0);
    return key;
}

void audit(const memory_options & given) {
    shared_state  state(given);
    const indexer running(state);
    wait_until([&] {
        const std::lock_guard<std::mutex> held(state.mutex);
        return state.entries.counters.index_complete;
    });
    const std::lock_guard<std::mutex> held(state.mutex);
    catalog &                         entries = state.entries;
    catalog_audit::check(entries);
    const memory_stats stats = entries.stats();
    CHECK(stats.disk_bytes == bytes_of(given.path) && stats.disk_entries == files_of(given.path).size());
    for (const digest & key : catalog_audit::stored(entries)) {
        CHECK(catalog_audit::node(entries, key)->position <= MAX_POSITION + MAX_TOKENS * stats.disk_entries);
    }
    std::optional<tier_books::place> cursor;
    while (const auto pieces = entries.next_to_preload({*digest_from_hex(ROOT)}, 4, cursor)) {
        for (const match_piece & piece : *pieces) {
            CHECK(catalog_audit::node(entries, piece.key)->fits);
        }
    }
    while (!entries.trim(1).empty()) {
    }
    catalog_audit::check(entries);
    CHECK(stats.disk_bytes <= given.disk_bytes || entries.stats().disk_entries < stats.disk_entries);
}

void use(input & from, const memory_options & given) {
    memory_store store(given);
    store.preload({ROOT});
    wait_indexed(store);
    for (int i = 0; i < 4; i++) {
        const auto tokens = tokens_of(from, BLOCK * from.below(4) + from.below(BLOCK));
        find(store, tokens, from.below(2));
        put_all(store, tokens, 100);
        find(store, tokens);
    }
    const auto ours = some_tokens(1, 3 * BLOCK + 5);
    put_all(store, ours, 100);
    CHECK(find(store, ours).n_tokens == ours.size());
    flush(store);
    wait_until([&] { return store.stats().disk_bytes <= given.disk_bytes; });
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t * bytes, size_t n_bytes) {
    static const scratch_directory scratch;
    input                          from = {bytes, n_bytes};
    const std::string              path = scratch.path + "/memory";
    std::vector<std::string>       keys = {ROOT, root_of(1)};
    const uint64_t                 disk = from.below(2) ? 20000 : 2000;
    while (!from.is_empty() && keys.size() < 24) {
        keys.push_back(write_some_file(from, path, keys));
    }
    fs::create_directories(path + "/blocks");
    audit(options(path, MiB, disk));
    memory_options small = options(path, from.below(2) ? 4000 : MiB, disk);
    small.preload_bytes  = MiB;
    use(from, small);
    fs::remove_all(path);
    return 0;
}
