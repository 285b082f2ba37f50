// Damaged files, foreign files and trouble with the disk.
#include "memory-test.hpp"

#include "backoff.hpp"
#include "entry-file.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <fstream>

namespace fs = std::filesystem;
using namespace memory_test;

static void flip(const std::string & path, int64_t offset) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(offset, offset < 0 ? std::ios::end : std::ios::beg);
    const auto at   = file.tellg();
    const char byte = (char) (file.get() ^ 1);
    file.seekp(at);
    file.put(byte);
    CHECK(file.good());
}

// Damages the second of three files, by now and once opened; the first is still found.
static void check_damage(const std::string & dir, const std::function<void(const std::string &)> & damage,
                         bool is_ours) {
    const auto               tokens = some_tokens(1, 3 * BLOCK);
    std::vector<std::string> keys;
    for (const bool while_open : {true, false}) {
        {
            memory_store store(options(dir, 0));
            wait_indexed(store);
            keys = put_all(store, tokens);
            flush(store);
            CHECK(find(store, tokens).n_tokens == 3 * BLOCK);
            damage(file_of(dir, keys[1]));
            if (while_open) {
                CHECK(find(store, tokens).n_tokens == BLOCK && !store.contains(keys[1]));
                CHECK(store.stats().bad_checksum == is_ours && store.stats().foreign_files == !is_ours);
                if (is_ours) {
                    wait_until([&] { return !fs::exists(file_of(dir, keys[1])); });
                }
            }
        }
        memory_store store(options(dir, 0));
        wait_indexed(store);
        CHECK(find(store, tokens).n_tokens == BLOCK);
        CHECK(store.stats().bad_checksum == (is_ours && !while_open) && store.stats().foreign_files == !is_ours);
        wait_until([&] { return fs::exists(file_of(dir, keys[1])) == !is_ours; });
        put_all(store, tokens); // what is damaged is replaced
        flush(store);
        CHECK(find(store, tokens).n_tokens == 3 * BLOCK);
    }
}

CASE(damaged_header) {
    check_damage(dir, [](const std::string & path) { flip(path, 24); }, true);
}

CASE(damaged_tokens) {
    check_damage(dir, [](const std::string & path) { flip(path, memory::FIXED_HEADER_BYTES + 2); }, true);
}

CASE(truncated_data) {
    check_damage(dir, [](const std::string & path) { fs::resize_file(path, fs::file_size(path) - 1); }, true);
}

CASE(truncated_header) {
    check_damage(dir, [](const std::string & path) { fs::resize_file(path, 20); }, true);
}

CASE(file_of_another_key) {
    check_damage(
        dir,
        [&](const std::string & path) {
            for (const auto & other : files_of(dir)) {
                if (other != path) {
                    fs::copy_file(other, path, fs::copy_options::overwrite_existing);
                }
            }
        },
        true);
}

CASE(foreign_content) {
    check_damage(dir, [](const std::string & path) { std::ofstream(path) << "somebody else's"; }, false);
}

CASE(newer_version) {
    check_damage(dir, [](const std::string & path) { flip(path, 8); }, false);
}

CASE(empty_file) {
    check_damage(dir, [](const std::string & path) { fs::resize_file(path, 0); }, false);
}

// Damage to the data is seen when it is read.
CASE(damaged_data) {
    const auto   tokens = some_tokens(1, 3 * BLOCK);
    memory_store store(options(dir, 0));
    const auto   keys = put_all(store, tokens);
    put(store, entry_kind::checkpoint, keys[0], {});
    const auto checkpoint = put(store, entry_kind::checkpoint, keys[1], {});
    flush(store);
    flip(file_of(dir, checkpoint), -1);
    CHECK(find(store, tokens, true).n_tokens == BLOCK);
    flip(file_of(dir, keys[1]), -500);
    CHECK(find(store, tokens).n_tokens == BLOCK);
    CHECK(store.stats().bad_checksum == 2);
    wait_until([&] { return files_of(dir).size() == 3; });
}

static memory::file_header header_of(entry_kind kind, const std::string & parent, const memory_tokens & tokens,
                                     uint64_t position) {
    memory::file_header header;
    header.kind     = kind;
    header.parent   = *memory::digest_from_hex(parent);
    header.tokens   = tokens;
    header.position = position;
    return header;
}

// Of right checksums and key, and nothing that a server wrote.
CASE(files_of_a_shape_that_cannot_be) {
    const memory::file_header wrong[] = {
        header_of(entry_kind::block, ROOT, {}, 0),
        header_of(entry_kind::block, ROOT, some_tokens(1, 15), 0),
        header_of(entry_kind::block, ROOT, some_tokens(2, BLOCK), 8),
        header_of(entry_kind::block, ROOT, some_tokens(3, BLOCK), 1ull << 32),
        header_of(entry_kind::tail, ROOT, {}, 0),
        header_of(entry_kind::tail, ROOT, some_tokens(4, 1024), 0),
        header_of(entry_kind::tail, ROOT, some_tokens(5, 1000), 999),
        header_of(entry_kind::checkpoint, ROOT, some_tokens(6, 1024), 0),
        header_of(entry_kind::checkpoint, ROOT, {}, 1031),
    };
    for (const auto & header : wrong) {
        write_file(dir, header, 100);
    }
    memory_store store(options(dir));
    wait_indexed(store);
    CHECK(store.stats().bad_checksum == std::size(wrong) && store.stats().disk_entries == 0 && files_of(dir).empty());
}

// They count and are given up as all others, and are in nobody's way.
CASE(entries_of_another_block_size_are_not_found) {
    const auto ours  = some_tokens(1, 2 * BLOCK + 5);
    const auto large = slice(ours, 0, 2 * BLOCK);
    {
        memory_store store(options(dir));
        put(store, entry_kind::block, ROOT, slice(ours, 0, BLOCK));
        flush(store);
    }
    const auto block = write_file(dir, header_of(entry_kind::block, ROOT, large, 0), 1000);
    write_file(dir, header_of(entry_kind::tail, ROOT, slice(ours, 0, BLOCK), 0), 1000); // as many as our block has
    write_file(dir, header_of(entry_kind::tail, ROOT, slice(ours, 0, BLOCK + 4), 0), 1000);
    write_file(dir, header_of(entry_kind::checkpoint, ROOT, slice(ours, 0, BLOCK + 1), 0), 1000);
    write_file(dir, header_of(entry_kind::tail, block, slice(ours, 2 * BLOCK, ours.size()), 2 * BLOCK), 1000);
    const uint64_t bytes = bytes_of(dir);
    {
        memory_store store(options(dir));
        wait_indexed(store);
        CHECK(store.stats().disk_entries == 6 && store.stats().disk_bytes == bytes && store.contains(block));
        CHECK(find(store, ours).n_tokens == BLOCK && find(store, ours, true).n_tokens == 0);
        put_all(store, ours);
        CHECK(find(store, ours).n_tokens == ours.size());
    }
    memory_store small(options(dir, MiB, 3 * memory::file_bytes(BLOCK, 1000)));
    wait_indexed(small);
    wait_until([&] { return small.stats().disk_bytes <= small.options().disk_bytes; });
    CHECK(small.stats().bad_checksum == 0);
}

CASE(other_files_are_left_alone) {
    fs::create_directories(dir + "/blocks/ab/cd/ef");
    fs::create_directories(dir + "/tmp");
    const std::vector<std::string> names = {"/blocks/README",     "/blocks/ab/cd/notes.kv",
                                            "/blocks/ab/cd/ef/x", "/blocks/ab/cd/" + ROOT + ".kv",
                                            "/tmp/mine.tmp",      "/elsewhere"};
    for (const auto & name : names) {
        std::ofstream(dir + name) << "mine";
    }
    fs::create_symlink("/etc", dir + "/blocks/ba");
    std::ofstream(dir + "/tmp/atlas-AbCdEf.tmp") << "left over";
    {
        memory_store store(options(dir));
        wait_indexed(store);
        CHECK(store.stats().foreign_files == 3 && store.stats().disk_entries == 0);
    }
    for (const auto & name : names) {
        CHECK(fs::file_size(dir + name) == 4);
    }
    CHECK(!fs::exists(dir + "/tmp/atlas-AbCdEf.tmp"));
}

CASE(path_below_a_file) {
    std::ofstream(dir + "/file") << "in the way";
    memory_store store(options(dir + "/file/memory"));
    const auto   tokens = some_tokens(1, 3 * BLOCK);
    CHECK(store.stats().disk_problem.find(dir + "/file") != std::string::npos);
    CHECK(store.stats().disk_problem.find("Not a directory") != std::string::npos);
    put_all(store, tokens);
    const auto result = store.flush(60);
    CHECK(!result.complete && result.entries == 0);
    CHECK(store.stats().write_failures > 0 && store.stats().pending_entries == 3);
    CHECK(store.stats().disk_problem.find("Not a directory") != std::string::npos);
    CHECK(find(store, tokens).tier == 1);
    fs::remove(dir + "/file");
    flush(store);
    CHECK(store.stats().disk_problem.empty() && store.stats().pending_entries == 0 && bytes_of(dir) > 0);
}

CASE(full_disk) {
    std::signal(SIGXFSZ, SIG_IGN);
    memory_store store(options(dir));
    const auto   small = some_tokens(1, BLOCK);
    const auto   large = some_tokens(2, BLOCK);
    rlimit       limit;
    CHECK(::getrlimit(RLIMIT_FSIZE, &limit) == 0);
    const rlimit low = {10000, limit.rlim_max};
    CHECK(::setrlimit(RLIMIT_FSIZE, &low) == 0);
    put_all(store, large, 20000);
    put_all(store, small, 1000);
    CHECK(!store.flush(60).complete);
    CHECK(store.stats().disk_problem.find("File too large") != std::string::npos);
    CHECK(store.stats().disk_problem.find(dir + "/tmp/") != std::string::npos);
    CHECK(find(store, large).tier == 1 && store.stats().pending_entries == 1);
    CHECK(store.stats().disk_bytes == memory::file_bytes(BLOCK, 1000)); // one entry does not hold up the others
    CHECK(files_of(dir).size() == 1);
    CHECK(::setrlimit(RLIMIT_FSIZE, &limit) == 0);
    flush(store);
    CHECK(files_of(dir).size() == 2 && store.stats().disk_problem.empty());
}

CASE(superseded_while_the_disk_fails) {
    std::ofstream(dir + "/file") << "in the way";
    memory_store      store(options(dir + "/file/memory"));
    const auto        tokens = some_tokens(1, BLOCK);
    const std::string first  = put(store, entry_kind::tail, ROOT, slice(tokens, 0, 5));
    CHECK(!store.flush(60).complete);
    put(store, entry_kind::tail, ROOT, slice(tokens, 0, 9), 1000, first);
    CHECK(!store.contains(first) && store.stats().pending_entries == 1);
    fs::remove(dir + "/file");
    flush(store);
    CHECK(files_of(dir).size() == 1 && store.stats().written_entries == 1);
}

CASE(vanished_directory) {
    memory_store store(options(dir + "/a/b"));
    const auto   tokens = some_tokens(1, 3 * BLOCK);
    wait_indexed(store); // it makes the directories that it misses, also between two steps of who removes them
    put_all(store, tokens);
    flush(store);
    fs::remove_all(dir + "/a");
    const auto other = some_tokens(2, 3 * BLOCK);
    put_all(store, other);
    flush(store);
    CHECK(files_of(dir).size() == 3 && store.stats().disk_problem.empty());
    fs::remove_all(dir + "/a/b/blocks");
    put_all(store, some_tokens(3, BLOCK));
    flush(store);
    CHECK(files_of(dir).size() == 1);
    CHECK(find(store, tokens).tier == 1);
}

CASE(backoff_is_bounded) {
    memory::backoff delays;
    for (int round = 0; round < 20; round++) {
        double base = 500;
        for (int i = 0; i < 12; i++) {
            const double delay = (double) delays.next().count();
            CHECK(delay >= base * 0.74 && delay <= base * 1.25);
            base = std::min(base * 2, 24000.0);
        }
        delays.reset();
    }
}
