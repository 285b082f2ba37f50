// The disk in trouble: calls of the system that fail, as they do where a disk is full, read-only or broken.
#include "memory-test.hpp"

#include "writer.hpp"

#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>

namespace fs = std::filesystem;
using namespace memory_test;

static std::atomic<int> write_error{0}, sync_error{0}, open_error{0}, remove_error{0}; // errno; 0: it works

static int failed(int code) {
    errno = code;
    return -1;
}

// What would be called without this program: the C library's, or that of a library which was loaded before it.
template <typename F> static F * next(F *, const char * name) {
    return reinterpret_cast<F *>(::dlsym(RTLD_NEXT, name));
}

// In place of the C library's, for the whole program.
extern "C" {

ssize_t pwrite(int fd, const void * bytes, size_t n_bytes, off_t offset) {
    static const auto call = next(pwrite, "pwrite");
    return write_error ? failed(write_error) : call(fd, bytes, n_bytes, offset);
}

int fdatasync(int fd) {
    static const auto call = next(fdatasync, "fdatasync");
    return sync_error ? failed(sync_error) : call(fd);
}

int unlink(const char * path) noexcept {
    static const auto call = next(unlink, "unlink");
    return remove_error ? failed(remove_error) : call(path);
}

ssize_t pread(int fd, void * to, size_t n_bytes, off_t offset) {
    static const auto call = next(pread, "pread");
    return open_error ? failed(open_error) : call(fd, to, n_bytes, offset);
}
}

// While a call fails, all else goes on; when it works again, so does the disk, and nobody has to say so.
static void check_writing(const std::string & dir, std::atomic<int> & error, int code, const std::string & text) {
    memory_options durable = options(dir);
    durable.sync_each      = true;
    memory_store store(durable);
    wait_indexed(store);
    error             = code;
    const auto tokens = some_tokens(1, 3 * BLOCK);
    put_all(store, tokens);
    wait_until([&] { return !store.stats().disk_problem.empty(); });
    memory_stats stats = store.stats();
    CHECK(stats.disk_problem.find(text) != std::string::npos && stats.disk_problem.find(dir) != std::string::npos);
    CHECK(stats.disk_retry_s >= 0 && stats.disk_retry_s <= 30 && stats.write_failures > 0);
    CHECK(!store.flush(60).complete);
    CHECK(find(store, tokens).tier == 1 && store.stats().pending_entries == 3 && files_of(dir + "/blocks").empty());
    error = 0;
    wait_until([&] { return store.stats().pending_entries == 0; });
    flush(store);
    stats = store.stats();
    CHECK(stats.disk_problem.empty() && stats.disk_retry_s == 0 && files_of(dir).size() == 3);
    CHECK(stats.disk_bytes == bytes_of(dir) && stats.write_drops == 0);
}

CASE(disk_is_full) { check_writing(dir, write_error, ENOSPC, "No space left on device"); }

CASE(quota_is_used_up) { check_writing(dir, write_error, EDQUOT, "Disk quota exceeded"); }

CASE(sync_fails) { check_writing(dir, sync_error, EIO, "Input/output error"); }

CASE(files_cannot_be_removed) {
    const uint64_t file = memory::file_bytes(BLOCK, 1000);
    memory_store   store(options(dir, MiB, 2 * file));
    put_all(store, some_tokens(1, 2 * BLOCK));
    flush(store);
    remove_error = EROFS;
    put_all(store, some_tokens(2, BLOCK));
    CHECK(!store.flush(60).complete);
    CHECK(store.stats().disk_problem.find("Read-only file system") != std::string::npos);
    CHECK(bytes_of(dir) == 2 * file && store.stats().disk_bytes <= 2 * file); // the budget holds all the same
    CHECK(find(store, some_tokens(2, BLOCK)).tier == 1);
    remove_error = 0;
    wait_until([&] { return store.stats().pending_entries == 0; });
    flush(store);
    CHECK(store.stats().disk_problem.empty() && bytes_of(dir) == 2 * file);
}

CASE(reading_fails) {
    const auto   tokens = some_tokens(1, 3 * BLOCK);
    memory_store store(options(dir, 0));
    const auto   keys = put_all(store, tokens);
    flush(store);
    open_error = EIO;
    CHECK(find(store, tokens).n_tokens == 0);
    CHECK(store.stats().read_failures > 0 && store.stats().disk_problem.find("cannot read " + dir) == 0);
    CHECK(store.stats().disk_problem.find("Input/output error") != std::string::npos);
    wait_until([&] { // it is left alone
        const uint64_t failures = store.stats().read_failures;
        return find(store, tokens).n_tokens == 0 && store.stats().read_failures == failures;
    });
    CHECK(store.contains(keys[2]) && store.stats().bad_checksum == 0);
    open_error = 0;
    wait_until([&] { return find(store, tokens).n_tokens == 3 * BLOCK; });
    CHECK(store.stats().disk_problem.empty() && store.stats().disk_entries == 3);
}

CASE(path_is_away_for_a_while) {
    const std::string path   = dir + "/memory";
    const auto        tokens = some_tokens(1, 3 * BLOCK), other = some_tokens(2, BLOCK);
    memory_store      store(options(path, 0));
    put_all(store, tokens);
    flush(store);
    put_away(path);
    CHECK(find(store, tokens).n_tokens == 0);
    CHECK(store.stats().disk_problem.find("Not a directory") != std::string::npos);
    put_all(store, other);
    CHECK(!store.flush(60).complete && find(store, other).n_tokens == BLOCK); // waiting, it is in memory
    bring_back(path);
    wait_until([&] { return find(store, tokens).n_tokens == 3 * BLOCK; }); // nothing was forgotten
    flush(store);
    CHECK(store.stats().disk_problem.empty() && files_of(dir).size() == 4 && store.stats().disk_entries == 4);
}

CASE(directory_is_emptied) {
    const auto   tokens = some_tokens(1, 3 * BLOCK);
    memory_store store(options(dir + "/memory", 0));
    wait_indexed(store); // it makes the directories that it misses, also between two steps of who removes them
    put_all(store, tokens);
    flush(store);
    fs::remove_all(dir + "/memory");
    CHECK(find(store, tokens).n_tokens == 0 && store.stats().disk_problem.empty());
    put_all(store, tokens);
    flush(store);
    CHECK(find(store, tokens).n_tokens > 0 && store.stats().read_failures == 0);
}

CASE(index_waits_for_the_disk) {
    const auto tokens = some_tokens(1, 3 * BLOCK);
    {
        memory_store store(options(dir + "/memory"));
        put_all(store, tokens);
        flush(store);
    }
    put_away(dir + "/memory");
    memory_store store(options(dir + "/memory"));
    CHECK(!store.stats().index_complete && !store.stats().disk_problem.empty());
    CHECK(find(store, tokens).n_tokens == 0);
    bring_back(dir + "/memory");
    wait_indexed(store);
    CHECK(find(store, tokens).tier == 2 && store.stats().disk_problem.empty());
}

CASE(writer_ends_where_the_store_was_not_made) {
    memory::shared_state state(options(dir));
    const memory::writer writer(state); // what follows it in the constructor may throw
}
