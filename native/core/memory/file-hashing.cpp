#include "atlas-file-hashing.hpp"

#include "atlas-log.hpp"
#include "file-descriptor.hpp"
#include "hash/xxhash/xxhash.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <ctime>
#include <mutex>
#include <new>
#include <optional>
#include <sstream>
#include <system_error>
#include <thread>
#include <utility>

namespace atlas {

namespace {

constexpr size_t PIECE       = 1 << 20; // bytes
constexpr size_t MAX_CACHE   = 1 << 16; // bytes; then it is begun anew
constexpr size_t HASH_DIGITS = 32;
constexpr char   MISSING[]   = "missing";

// The coarsest clock of a file system. A file that was changed so shortly before its hashing could be changed again
// without a new time, so its hash is not remembered.
constexpr int64_t CLOCK_STEP_NS = 2'000'000'000;

// What the system says of a file. While all of it stays the same, the content is taken to be the same.
struct file_identity {
    uint64_t device = 0, inode = 0, size = 0; // size in bytes
    int64_t  modified_ns = 0, changed_ns = 0; // since 1970: mtime and ctime

    friend bool operator==(const file_identity & a, const file_identity & b) {
        return a.device == b.device && a.inode == b.inode && a.size == b.size && a.modified_ns == b.modified_ns &&
               a.changed_ns == b.changed_ns;
    }
    friend bool operator!=(const file_identity & a, const file_identity & b) { return !(a == b); }
};

int64_t nanoseconds(const timespec & time) { return time.tv_sec * 1'000'000'000ll + time.tv_nsec; }

int64_t now_ns() {
    timespec now;
    ::clock_gettime(CLOCK_REALTIME, &now);
    return nanoseconds(now);
}

file_identity identity_of(const struct stat & info) {
    return {info.st_dev, info.st_ino, (uint64_t) info.st_size, nanoseconds(info.st_mtim), nanoseconds(info.st_ctim)};
}

template <typename T> std::string hex(const T & canonical) {
    static const char DIGITS[] = "0123456789abcdef";
    std::string       text;
    for (const unsigned char byte : canonical.digest) {
        text += DIGITS[byte >> 4];
        text += DIGITS[byte & 15];
    }
    return text;
}

// XXH3 with 128 bits of all that was added.
class running_hash {
  public:
    running_hash() : state(XXH3_createState()) {
        if (!state) {
            throw std::bad_alloc();
        }
        XXH3_128bits_reset(state);
    }
    running_hash(const running_hash &)             = delete;
    running_hash & operator=(const running_hash &) = delete;
    ~running_hash() { XXH3_freeState(state); }

    void        add(const void * data, size_t n_bytes) { XXH3_128bits_update(state, data, n_bytes); }
    std::string value() const {
        XXH128_canonical_t canonical;
        XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state));
        return hex(canonical);
    }

  private:
    XXH3_state_t * const state;
};

// A line of the cache, with a checksum of itself at its end.
std::string cache_line(const file_identity & file, const std::string & hash) {
    std::ostringstream line;
    line << "xxh3-128 " << file.device << " " << file.inode << " " << file.size << " " << file.modified_ns << " "
         << file.changed_ns << " " << hash << " ";
    const std::string text = line.str();
    XXH64_canonical_t sum;
    XXH64_canonicalFromHash(&sum, XXH3_64bits(text.data(), text.size()));
    return text + hex(sum);
}

std::string read_cache(const std::string & path) {
    const file_descriptor file(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    std::string           text(MAX_CACHE, '\0');
    const ssize_t         n = file.is_open() ? ::pread(file.get(), text.data(), text.size(), 0) : 0;
    text.resize(n > 0 ? (size_t) n : 0);
    return text;
}

std::optional<std::string> find_cached(const std::string & cache, const file_identity & file) {
    const std::string  any   = cache_line(file, std::string(HASH_DIGITS, '0'));
    const size_t       begin = any.size() - HASH_DIGITS - 1 - 2 * sizeof(XXH64_canonical_t);
    std::istringstream lines(cache);
    for (std::string line; std::getline(lines, line);) {
        if (line.size() == any.size() && line.compare(0, begin, any, 0, begin) == 0) {
            const std::string hash = line.substr(begin, HASH_DIGITS);
            if (line == cache_line(file, hash)) {
                return hash;
            }
        }
    }
    return std::nullopt;
}

void add_to_cache(const std::string & path, const file_identity & identity, const std::string & hash) {
    const int             flags = O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
    const file_descriptor file(::open(path.c_str(), flags, 0600));
    struct stat           info;
    // the line feed first, as the last line may have been cut off by a crash
    const std::string text       = "\n" + cache_line(identity, hash) + "\n";
    const bool        is_written = file.is_open() && ::fstat(file.get(), &info) == 0 && S_ISREG(info.st_mode) &&
                                   (info.st_size + text.size() <= MAX_CACHE || ::ftruncate(file.get(), 0) == 0) &&
                                   ::write(file.get(), text.data(), text.size()) == (ssize_t) text.size();
    if (!is_written) {
        logf(LogLevel::WARN, "cannot write %s: %s; the model's files are hashed again at the next start", path.c_str(),
             std::strerror(errno));
    }
}

// Why a file has no hash.
struct no_hash {
    std::string problem;
};

[[noreturn]] void fail(const std::string & path, const std::string & why) {
    throw no_hash{"cannot read " + path + ": " + why};
}

} // namespace

struct file_hashing::job {
    job(std::vector<std::string> paths, std::string cache) : paths(std::move(paths)), cache(std::move(cache)) {}

    const std::vector<std::string>            paths;
    const std::string                         cache; // its path
    std::vector<std::optional<file_identity>> files;
    uint64_t                                  total = 0;

    std::atomic<uint64_t> bytes{0};
    std::atomic<bool>     is_unwanted{false};

    std::mutex               mutex;
    std::condition_variable  changed;
    std::vector<std::string> hashes; // by file; empty: not known yet
    bool                     is_done = false;
    std::string              problem;
    std::function<void()>    action;
    std::mutex               acting; // while the action runs

    void look_up();
    void run();
    void hash_all();
    void hash(size_t at, char * buffer);
    void finish(const std::string & why);
    void act();

    static std::optional<file_identity> look_at(const std::string & path);
};

// The file's identity; nothing where there is no such file. Fails for what is no regular file: opening a device or a
// pipe may have an effect by itself.
std::optional<file_identity> file_hashing::job::look_at(const std::string & path) {
    struct stat info;
    if (::stat(path.c_str(), &info) != 0) {
        if (errno != ENOENT && errno != ENOTDIR) {
            fail(path, std::strerror(errno));
        }
        return std::nullopt;
    }
    if (!S_ISREG(info.st_mode)) {
        fail(path, "it is no regular file");
    }
    return identity_of(info);
}

// Finds which files there are, and which hashes the cache has.
void file_hashing::job::look_up() {
    const std::string known = cache.empty() ? "" : read_cache(cache);
    for (const std::string & path : paths) {
        files.push_back(look_at(path));
        const auto & file = files.back();
        hashes.push_back(file ? find_cached(known, *file).value_or("") : MISSING);
        total += hashes.back().empty() ? file->size : 0;
    }
    is_done = std::none_of(hashes.begin(), hashes.end(), [](const std::string & hash) { return hash.empty(); });
}

void file_hashing::job::run() {
    ::setpriority(PRIO_PROCESS, 0, 10); // Linux: of this thread only
    std::string why;
    try {
        hash_all();
    } catch (const no_hash & error) {
        why = error.problem;
    } catch (const std::bad_alloc &) {
        why = "there is no memory to hash the model's files";
    }
    finish(why);
}

void file_hashing::job::hash_all() {
    const auto buffer = std::make_unique<char[]>(PIECE);
    for (size_t at = 0; at < paths.size() && !is_unwanted; at++) {
        if (hashes[at].empty()) {
            hash(at, buffer.get());
        }
    }
}

void file_hashing::job::hash(size_t at, char * buffer) {
    const std::string &   path  = paths[at];
    const file_identity & known = *files[at];
    const int64_t         began = now_ns();
    const file_descriptor file(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    if (!file.is_open()) {
        fail(path, std::strerror(errno));
    }
    const auto check = [&] {
        struct stat info;
        if (::fstat(file.get(), &info) != 0) {
            fail(path, std::strerror(errno));
        }
        if (identity_of(info) != known) {
            fail(path, "it was changed or replaced meanwhile");
        }
    };
    check();
    running_hash sum;
    for (uint64_t done = 0; done < known.size;) {
        const ssize_t n = ::pread(file.get(), buffer, std::min<uint64_t>(PIECE, known.size - done), (off_t) done);
        if (is_unwanted) {
            return;
        }
        if (n == 0 || (n < 0 && errno != EINTR)) {
            fail(path, n == 0 ? "it became shorter" : std::strerror(errno));
        }
        if (n > 0) {
            sum.add(buffer, (size_t) n);
            done += (uint64_t) n;
            bytes += (uint64_t) n;
        }
    }
    check();
    {
        const std::lock_guard<std::mutex> held(mutex);
        hashes[at] = sum.value();
    }
    if (!cache.empty() && known.changed_ns < began - CLOCK_STEP_NS && known.modified_ns < began - CLOCK_STEP_NS) {
        add_to_cache(cache, known, hashes[at]);
    }
}

void file_hashing::job::finish(const std::string & why) {
    {
        const std::lock_guard<std::mutex> held(mutex);
        if (is_done) {
            return;
        }
        is_done = true;
        problem = why;
    }
    changed.notify_all();
    act();
}

// Calls the action, if there is one, unless hashing was given up.
void file_hashing::job::act() {
    const std::lock_guard<std::mutex> acts(acting);
    std::function<void()>             todo;
    {
        const std::lock_guard<std::mutex> held(mutex);
        if (is_done) {
            todo.swap(action);
        }
    }
    if (todo && !is_unwanted) {
        todo();
    }
}

file_hashing::file_hashing(std::vector<std::string> paths, std::string cache)
    : self(std::make_shared<job>(std::move(paths), std::move(cache))) {
    try {
        self->look_up();
        if (!self->is_done) {
            std::thread([job = self] { job->run(); }).detach();
        }
    } catch (const no_hash & error) {
        self->finish(error.problem);
    } catch (const std::system_error & error) {
        self->finish(std::string("there is no thread to hash the model's files: ") + error.what());
    }
}

void file_hashing::give_up() {
    self->is_unwanted = true;
    self->finish("hashing was given up");
    const std::lock_guard<std::mutex> acts(self->acting);
}

bool file_hashing::is_of(const std::vector<std::string> & paths) const {
    if (paths != self->paths || !progress().problem.empty()) {
        return false;
    }
    try {
        for (size_t i = 0; i < paths.size(); i++) {
            if (job::look_at(paths[i]) != self->files[i]) {
                return false;
            }
        }
        return true;
    } catch (const no_hash &) {
        return false;
    }
}

hashing_progress file_hashing::progress() const {
    const std::lock_guard<std::mutex> held(self->mutex);
    return {self->bytes, self->total, self->is_done, self->problem};
}

void file_hashing::wait(uint64_t max_bytes) const {
    std::unique_lock<std::mutex> held(self->mutex);
    if (self->total - self->bytes <= max_bytes) {
        self->changed.wait(held, [&] { return self->is_done; });
    }
}

std::vector<std::string> file_hashing::hashes() const {
    const std::lock_guard<std::mutex> held(self->mutex);
    return self->is_done && self->problem.empty() ? self->hashes : std::vector<std::string>();
}

void file_hashing::then(std::function<void()> action) {
    bool is_done;
    {
        const std::lock_guard<std::mutex> held(self->mutex);
        self->action = std::move(action);
        is_done      = self->is_done;
    }
    if (is_done) {
        self->act();
    }
}

} // namespace atlas
