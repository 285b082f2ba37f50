#include "directory.hpp"

#include "file-descriptor.hpp"
#include "whole-file.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>

namespace atlas::memory {

namespace {

namespace fs = std::filesystem;

constexpr size_t WRITE_PIECE = 1 << 20; // bytes

} // namespace

std::string directory::file_path(const digest & key) const {
    const std::string name = digest_hex(key);
    return blocks_path() + "/" + name.substr(0, 2) + "/" + name.substr(2, 2) + "/" + name + ".kv";
}

static std::string parent_of(const std::string & path) {
    const size_t end = path.rfind('/');
    return end == std::string::npos ? "." : path.substr(0, std::max<size_t>(end, 1));
}

void sync_directory(const std::string & path) {
    const file_descriptor opened(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    const bool            is_ours = opened.is_open() || (errno != ENOENT && errno != ENOTDIR && errno != EACCES);
    if (is_ours && (!opened.is_open() || ::fsync(opened.get()) != 0)) {
        fail_on_file("sync directory", path, errno);
    }
}

void make_directories(const std::string & path, bool is_durable) {
    for (size_t end = path.find('/', 1); end != std::string::npos; end = path.find('/', end + 1)) {
        if (const std::string above = path.substr(0, end); make_directory(above) && is_durable) {
            sync_directory(parent_of(above));
        }
    }
    make_directory(path);
    if (is_durable) {
        sync_directory(parent_of(path)); // also where it was there: its maker may have ended before it synced it
    }
}

void directory::make() const {
    make_directories(root, sync_each);
    make_directory(root + "/tmp");
    make_directory(blocks_path());
    if (sync_each) {
        sync_directory(root);
    }
}

void directory::remove_leftovers() const {
    for_names_in(root + "/tmp", [&](const std::string & name) {
        const size_t n = name.size();
        if (n < sizeof(temporary_file::PREFIX) + sizeof(temporary_file::SUFFIX) ||
            name.rfind(temporary_file::PREFIX, 0) != 0 ||
            name.substr(n - sizeof(temporary_file::SUFFIX) + 1) != temporary_file::SUFFIX) {
            return true;
        }
        const std::string     path = root + "/tmp/" + name;
        const file_descriptor file(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
        if (file.is_open() && (::flock(file.get(), LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK)) {
            ::unlink(path.c_str());
        }
        return true;
    });
}

void directory::add_unsynced(const std::string & path) {
    if (sync_each) {
        unsynced.insert(path);
    }
}

// Notes the directory of a key's file for the next sync, and those that lead to it unless they are known to be durable.
void directory::add_unsynced(const digest & key, const std::string & leaf) {
    const uint16_t number = (uint16_t) (key[0] << 8 | key[1]);
    add_unsynced(leaf);
    if (sync_each && !durable[number]) {
        add_unsynced(parent_of(leaf));
        add_unsynced(blocks_path());
        not_yet_durable.push_back(number);
    }
}

uint64_t directory::write(file_header header, const state_bytes & data, const std::function<void()> & rest) {
    const std::string target = file_path(header.key);
    const std::string leaf   = parent_of(target);
    if (std::error_code ignored; !fs::is_directory(root + "/tmp", ignored)) {
        make();
    }
    temporary_file   file(root + "/tmp");
    const off_t      begin = (off_t) header_bytes(header.tokens.size());
    running_checksum sum;
    for (size_t done = 0; done < data.size();) {
        const size_t n = std::min(WRITE_PIECE, data.size() - done);
        sum.add(data.data() + done, n);
        file.write(data.data() + done, n, begin + (off_t) done);
        done += n;
        rest();
    }
    header.data_bytes    = data.size();
    header.data_checksum = sum.value();
    const auto start     = encode_header(header);
    file.write(start.data(), start.size(), 0);
    if (sync_each) {
        file.sync();
    }
    if (!file.rename(target)) {
        if (errno != ENOENT) {
            fail_on_file("rename to", target, errno);
        }
        make();
        make_directory(parent_of(leaf));
        make_directory(leaf);
        durable[header.key[0] << 8 | header.key[1]] = false;
        if (!file.rename(target)) {
            fail_on_file("rename to", target, errno);
        }
    }
    add_unsynced(header.key, leaf);
    return (uint64_t) begin + data.size();
}

void directory::remove(const digest & key) const {
    const std::string path = file_path(key);
    if (::unlink(path.c_str()) != 0 && errno != ENOENT && errno != ENOTDIR) {
        fail_on_file("remove", path, errno);
    }
}

void directory::sync() {
    while (!unsynced.empty()) {
        sync_directory(*unsynced.begin());
        unsynced.erase(unsynced.begin());
    }
    for (; !not_yet_durable.empty(); not_yet_durable.pop_back()) {
        durable[not_yet_durable.back()] = true;
    }
}

// Reads the data and checks it piece by piece, while a piece is still in the processor's cache.
static read_result read_checked(int fd, const file_header & header, state_bytes & data) {
    constexpr size_t PIECE = 256 * 1024;
    running_checksum sum;
    for (size_t done = 0; done < data.size();) {
        const size_t  wanted = std::min(PIECE, data.size() - done);
        const ssize_t n = read_all(fd, data.data() + done, wanted, (off_t) (header_bytes(header.tokens.size()) + done));
        if (n < 0) {
            return read_result::failed;
        }
        if ((size_t) n != wanted) {
            return read_result::damaged;
        }
        sum.add(data.data() + done, wanted);
        done += wanted;
    }
    return sum.value() == header.data_checksum ? read_result::good : read_result::damaged;
}

// Clamped, since a file may have any time.
static int64_t nanoseconds(const timespec & time) {
    constexpr int64_t A_SECOND = 1000000000;
    return std::clamp<int64_t>(time.tv_sec, 0, MAX_FILE_TIME / A_SECOND - 1) * A_SECOND + time.tv_nsec;
}

read_result read_file(const std::string & path, file_header & header, file_facts & facts, state_bytes * data) {
    const file_descriptor file(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    if (!file.is_open()) {
        facts.error = errno;
        return errno == ENOENT || errno == ENOTDIR ? read_result::missing : read_result::failed;
    }
    struct stat info;
    uint8_t     start[header_bytes(MAX_TOKENS)];
    if (::fstat(file.get(), &info) != 0) {
        facts.error = errno;
        return read_result::failed;
    }
    if (!S_ISREG(info.st_mode)) {
        return read_result::foreign;
    }
    facts.bytes           = info.st_size;
    facts.modified_ns     = nanoseconds(info.st_mtim);
    const ssize_t n_start = read_all(file.get(), start, sizeof(start), 0);
    if (n_start < 0) {
        facts.error = errno;
        return read_result::failed;
    }
    switch (decode_header(start, n_start, facts.bytes, header)) {
        case file_state::foreign: return read_result::foreign;
        case file_state::damaged: return read_result::damaged;
        case file_state::good:    break;
    }
    if (data) {
        data->resize(header.data_bytes);
        if (const auto result = read_checked(file.get(), header, *data); result != read_result::good) {
            facts.error = errno;
            return result;
        }
    }
    return read_result::good;
}

bool for_names_in(const std::string & path, const std::function<bool(const std::string &)> & act) {
    const std::unique_ptr<DIR, int (*)(DIR *)> opened(::opendir(path.c_str()), ::closedir);
    if (!opened) {
        fail_on_file("read directory", path, errno);
    }
    while (const dirent * entry = ::readdir(opened.get())) {
        const std::string name = entry->d_name;
        if (name != "." && name != ".." && !act(name)) {
            return false;
        }
    }
    return true;
}

void mark_used(const std::string & path) { ::utimensat(AT_FDCWD, path.c_str(), nullptr, AT_SYMLINK_NOFOLLOW); }

} // namespace atlas::memory
