#include "directory-tier.hpp"

#include "directory-records.hpp"
#include "file-descriptor.hpp"
#include "whole-file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <future>
#include <new>
#include <system_error>
#include <utility>

namespace atlas {

namespace fs = std::filesystem;

namespace {

constexpr size_t MAX_LATE = 8; // threads that a file system may hold

constexpr std::chrono::seconds SWEEP_INTERVAL{10};

[[noreturn]] void fail(const std::string & what, const std::string & path, int code) {
    const auto kind = code == EACCES || code == EPERM || code == EROFS ? tier_failure::denied
                      : code == ENOSPC || code == EDQUOT               ? tier_failure::full
                                                                       : tier_failure::unreachable;
    throw tier_error(kind, "cannot " + what + " " + path + ": " + std::generic_category().message(code));
}

std::string file_of(const std::string & root, const std::string & key) {
    if (std::string of_record = record_file(root, key); !of_record.empty()) {
        return of_record;
    }
    const std::string name = key.substr(key.rfind(':') + 1);
    return root + "/blocks/" + name.substr(0, 2) + "/" + name.substr(2, 2) + "/" + name + ".kv";
}

std::string checked_record_file(const std::string & root, const std::string & key) {
    std::string file = record_file(root, key);
    if (file.empty()) {
        throw tier_error(tier_failure::broken, "'" + key + "' is no key of a record");
    }
    return file;
}

// A file that is missing is a miss; a directory that is missing as a whole is trouble.
void check_present(const std::string & root) {
    struct stat info;
    if (::stat(root.c_str(), &info) != 0) {
        fail("look into", root, errno);
    }
    if (!S_ISDIR(info.st_mode)) {
        fail("look into", root, ENOTDIR);
    }
}

// A link in the place of a file counts as none: it may lead anywhere.
bool is_missing(int code) { return code == ENOENT || code == ENOTDIR || code == ELOOP; }

bool is_there(const std::string & path) {
    struct stat info;
    if (::lstat(path.c_str(), &info) == 0) {
        return S_ISREG(info.st_mode);
    }
    if (!is_missing(errno)) {
        fail("look for", path, errno);
    }
    return false;
}

// Nothing where there is no such file; of one that is larger than a value can be no byte.
std::shared_ptr<std::string> read(const std::string & path, uint64_t max_bytes, tier_deadline until) {
    constexpr size_t      PIECE = 4 << 20;
    const file_descriptor file(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    struct stat           info;
    if (!file.is_open()) {
        if (is_missing(errno)) {
            return nullptr;
        }
        fail("open", path, errno);
    }
    if (::fstat(file.get(), &info) != 0) {
        fail("read", path, errno);
    }
    if (!S_ISREG(info.st_mode)) {
        return nullptr;
    }
    if ((uint64_t) info.st_size > max_bytes) {
        return std::make_shared<std::string>();
    }
    auto   bytes = std::make_shared<std::string>((size_t) info.st_size, '\0');
    size_t done  = 0;
    while (done < bytes->size()) {
        const size_t  wanted = std::min(PIECE, bytes->size() - done);
        const ssize_t n = read_all(file.get(), reinterpret_cast<uint8_t *>(bytes->data()) + done, wanted, (off_t) done);
        if (n < 0) {
            fail("read", path, errno);
        }
        done += (size_t) n;
        if ((size_t) n < wanted) {
            bytes->resize(done);
        }
        if (done < bytes->size() && tier_clock::now() >= until) {
            throw tier_error(tier_failure::late, "reading " + path + " took too long");
        }
    }
    return bytes;
}

void make_parents(const std::string & root, const std::string & target) {
    const std::string leaf = fs::path(target).parent_path();
    make_directory(root + "/blocks");
    make_directory(fs::path(leaf).parent_path());
    make_directory(leaf);
}

void write(const std::string & root, const std::string & target, const std::vector<std::string_view> & pieces,
           bool sync_each) {
    check_present(root);
    make_directory(root + "/tmp");
    temporary_file file(root + "/tmp");
    off_t          at = 0;
    for (const std::string_view piece : pieces) {
        file.write(piece.data(), piece.size(), at);
        at += (off_t) piece.size();
    }
    if (sync_each) {
        file.sync();
    }
    if (!file.rename(target)) {
        if (errno != ENOENT) {
            fail_on_file("rename to", target, errno);
        }
        make_parents(root, target);
        if (!file.rename(target)) {
            fail_on_file("rename to", target, errno);
        }
    }
}

// Removes the files below a directory of the first digits of keys that were not used for so long.
void remove_older(const std::string & directory, std::time_t than) {
    std::error_code ignored;
    for (fs::recursive_directory_iterator at(directory, ignored), end; !ignored && at != end; at.increment(ignored)) {
        struct stat       info;
        const std::string path     = at->path();
        const bool        is_value = path.size() > 3 && path.compare(path.size() - 3, 3, ".kv") == 0;
        if (is_value && ::lstat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) && info.st_mtim.tv_sec < than) {
            ::unlink(path.c_str());
        }
    }
}

tier_traits traits_of(const std::string & path, uint64_t max_value_bytes) {
    tier_traits made;
    made.scheme          = "file";
    made.address         = "file://" + path;
    made.max_value_bytes = max_value_bytes;
    return made;
}

} // namespace

directory_tier::directory_tier(std::string path, uint64_t max_value_bytes, bool sync_each)
    : path(std::move(path)), sync_each(sync_each), about(traits_of(this->path, max_value_bytes)),
      max_read_bytes(max_value_bytes), reading(MAX_LATE), writing(MAX_LATE) {}

void directory_tier::limit_values(uint64_t max_bytes) { max_read_bytes = std::min(max_bytes, about.max_value_bytes); }

// What the system refuses becomes a tier_error.
void directory_tier::work(const bounded_work & on, const char * what, tier_deadline until,
                          std::function<void()> action) const {
    try {
        on.run(std::move(action), until, std::string(what) + " in " + path + " took too long");
    } catch (const std::system_error & error) {
        fail(std::string(what) + " in", path, error.code().value());
    }
}

// On a network each of the files is a question of its own, so several are asked at a time.
static std::vector<bool> look_for(const std::string & root, const std::vector<std::string> & keys,
                                  tier_deadline until) {
    constexpr size_t AT_ONCE = 8, A_FEW = 32;
    const size_t     n_parts = keys.size() > A_FEW ? AT_ONCE : 1;
    const auto       part    = [&](size_t first) {
        std::vector<size_t> found;
        for (size_t i = first; i < keys.size() && tier_clock::now() < until; i += n_parts) {
            if (is_there(file_of(root, keys[i]))) {
                found.push_back(i);
            }
        }
        return found;
    };
    std::vector<std::future<std::vector<size_t>>> parts;
    for (size_t i = 0; i < n_parts; i++) {
        parts.push_back(std::async(i == 0 ? std::launch::deferred : std::launch::async, part, i));
    }
    std::vector<bool> has(keys.size(), false);
    for (auto & one : parts) {
        for (const size_t i : one.get()) {
            has[i] = true;
        }
    }
    return has;
}

std::vector<bool> directory_tier::probe(const std::vector<std::string> & keys, tier_deadline until) {
    const auto began = tier_clock::now();
    const auto found = std::make_shared<std::vector<bool>>(keys.size(), false);
    work(reading, "looking", until, [root = path, keys, found, until] {
        *found = look_for(root, keys, until);
        if (std::find(found->begin(), found->end(), true) == found->end()) {
            check_present(root);
        }
    });
    const std::lock_guard<std::mutex> held(mutex);
    counted.round_trip_s = std::chrono::duration<double>(tier_clock::now() - began).count();
    return *found;
}

void directory_tier::get(const std::vector<std::string> & keys, tier_deadline until,
                         const std::function<bool(size_t, tier_value)> & take) {
    for (size_t i = 0; i < keys.size(); i++) {
        const auto began = tier_clock::now();
        const auto found = std::make_shared<std::shared_ptr<std::string>>();
        work(reading, "reading", until, [root = path, key = keys[i], most = max_read_bytes.load(), found, until] {
            *found = read(file_of(root, key), most, until);
            if (!*found) {
                check_present(root);
            }
        });
        if (!*found) {
            return;
        }
        {
            const std::lock_guard<std::mutex> held(mutex);
            counted.reads++;
            counted.read_bytes += (*found)->size();
            counted.read_s += std::chrono::duration<double>(tier_clock::now() - began).count();
        }
        if (!take(i, {*found, **found})) {
            return;
        }
    }
}

// From a copy: the pieces are the caller's, and work that is late goes on.
void directory_tier::put(const std::string & key, const std::vector<std::string_view> & pieces,
                         std::chrono::seconds ttl, tier_deadline until) {
    const auto began = tier_clock::now();
    const auto bytes = std::make_shared<std::string>();
    size_t     size  = 0;
    for (const std::string_view piece : pieces) {
        size += piece.size();
    }
    bytes->reserve(size);
    for (const std::string_view piece : pieces) {
        bytes->append(piece);
    }
    work(writing, "writing", until,
         [root = path, key, bytes, sync_each = sync_each] { write(root, file_of(root, key), {*bytes}, sync_each); });
    counted_write(size, began);
    sweep(ttl, until);
}

void directory_tier::counted_write(size_t n_bytes, tier_clock::time_point began) {
    const std::lock_guard<std::mutex> held(mutex);
    counted.writes++;
    counted.written_bytes += n_bytes;
    counted.write_s += std::chrono::duration<double>(tier_clock::now() - began).count();
}

bool directory_tier::create(const std::string & key, std::string_view value, tier_deadline until) {
    const auto began  = tier_clock::now();
    const auto is_new = std::make_shared<bool>(false);
    work(writing, "writing", until, [root = path, key, bytes = std::string(value), is_new, sync_each = sync_each] {
        check_present(root);
        *is_new = create_record(root, checked_record_file(root, key), bytes, sync_each);
    });
    if (*is_new) {
        counted_write(value.size(), began);
    }
    return *is_new;
}

void directory_tier::replace(const std::string & key, std::string_view value, tier_deadline until) {
    const auto began = tier_clock::now();
    work(writing, "writing", until, [root = path, key, bytes = std::string(value), sync_each = sync_each] {
        check_present(root);
        replace_record(root, checked_record_file(root, key), bytes, sync_each);
    });
    counted_write(value.size(), began);
}

void directory_tier::add_name(const std::string & set, const std::string & name, tier_deadline until) {
    work(writing, "writing", until, [root = path, set, name] {
        check_present(root);
        create_record(root, name_file(root, set, name), "", false);
    });
}

void directory_tier::remove_name(const std::string & set, const std::string & name, tier_deadline until) {
    work(writing, "removing", until, [root = path, file = name_file(path, set, name)] {
        check_present(root);
        if (::unlink(file.c_str()) != 0 && !is_missing(errno)) {
            fail("remove", file, errno);
        }
    });
}

std::vector<std::string> directory_tier::names(const std::string & set, const std::string & after, size_t n_most,
                                               tier_deadline until) {
    const auto found = std::make_shared<std::vector<std::string>>();
    work(reading, "looking", until, [root = path, set, after, n_most, found] {
        check_present(root);
        *found = names_in(root, set, after, std::min(n_most, MAX_NAMES));
    });
    return *found;
}

void directory_tier::sweep(std::chrono::seconds ttl, tier_deadline until) {
    if (ttl.count() <= 0 || tier_clock::now() - swept < SWEEP_INTERVAL) {
        return;
    }
    char name[3];
    std::snprintf(name, sizeof(name), "%02x", next_swept++ % 256);
    swept = tier_clock::now();
    try {
        work(writing, "removing what is old", until, [directory = path + "/blocks/" + name, ttl] {
            remove_older(directory, std::time(nullptr) - (std::time_t) ttl.count());
        });
    } catch (const tier_error &) { // the value is written; the next one sweeps on
    }
}

std::vector<bool> directory_tier::keep(const std::vector<std::string> & keys, std::chrono::seconds,
                                       tier_deadline                    until) {
    const auto found = std::make_shared<std::vector<bool>>(keys.size(), false);
    work(writing, "marking", until, [root = path, keys, found] {
        check_present(root);
        for (size_t i = 0; i < keys.size(); i++) {
            const std::string file = file_of(root, keys[i]);
            (*found)[i]            = ::utimensat(AT_FDCWD, file.c_str(), nullptr, AT_SYMLINK_NOFOLLOW) == 0;
            if (!(*found)[i] && !is_missing(errno)) {
                fail("mark", file, errno);
            }
        }
    });
    return *found;
}

void directory_tier::remove(const std::vector<std::string> & keys, tier_deadline until) {
    work(writing, "removing", until, [root = path, keys] {
        check_present(root);
        for (const std::string & key : keys) {
            if (const std::string file = file_of(root, key); ::unlink(file.c_str()) != 0 && !is_missing(errno)) {
                fail("remove", file, errno);
            }
        }
    });
}

void directory_tier::ping(tier_deadline until) {
    work(reading, "looking", until, [root = path] { check_present(root); });
}

tier_counts directory_tier::counts() const {
    const std::lock_guard<std::mutex> held(mutex);
    return counted;
}

} // namespace atlas
