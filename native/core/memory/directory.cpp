#include "directory.hpp"

#include "atlas-seal.hpp"
#include "file-descriptor.hpp"
#include "sealed-entry.hpp"
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

namespace fs = std::filesystem;

digest directory::name_of(const digest & key) const { return seal ? seal->name_of(digest_hex(key)) : key; }

std::string directory::path_of_name(const digest & of) const {
    const std::string name = digest_hex(of);
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

// Of the directory of a file.
static uint16_t number_of(const digest & name) { return (uint16_t) (name[0] << 8 | name[1]); }

// Notes the directory of a file for the next sync, and those that lead to it unless they are known to be durable.
void directory::add_unsynced(const digest & name, const std::string & leaf) {
    const uint16_t number = number_of(name);
    add_unsynced(leaf);
    if (sync_each && !durable[number]) {
        add_unsynced(parent_of(leaf));
        add_unsynced(blocks_path());
        not_yet_durable.push_back(number);
    }
}

static uint64_t write_plain(file_header header, const state_bytes & data, const write_at & write,
                            const std::function<void()> & rest) {
    const uint64_t   begin = header_bytes(header.tokens.size());
    running_checksum sum;
    for (size_t done = 0; done < data.size();) {
        const size_t n = std::min(WRITE_PIECE, data.size() - done);
        sum.add(data.data() + done, n);
        write(data.data() + done, n, begin + done);
        done += n;
        rest();
    }
    header.data_bytes    = data.size();
    header.data_checksum = sum.value();
    const auto start     = encode_header(header);
    write(start.data(), start.size(), 0);
    return begin + data.size();
}

uint64_t directory::write(file_header header, const state_bytes & data, const std::function<void()> & rest) {
    const digest      name   = name_of(header.key);
    const std::string target = path_of_name(name);
    const std::string leaf   = parent_of(target);
    if (std::error_code ignored; !fs::is_directory(root + "/tmp", ignored)) {
        make();
    }
    temporary_file file(root + "/tmp");
    const auto     write   = [&](const uint8_t * bytes, size_t n, uint64_t at) { file.write(bytes, n, (off_t) at); };
    const uint64_t n_bytes = seal ? write_sealed(*seal, digest_hex(name), std::move(header), data, write, rest)
                                  : write_plain(std::move(header), data, write, rest);
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
        durable[number_of(name)] = false;
        if (!file.rename(target)) {
            fail_on_file("rename to", target, errno);
        }
    }
    add_unsynced(name, leaf);
    return n_bytes;
}

void directory::remove(const digest & key) const {
    remove_file(file_path(key));
    if (seal) {
        remove_file(path_of_name(key));
    }
}

void directory::remove_file(const std::string & path) const {
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

// The digits by which a file is called.
static std::string name_in(const std::string & path) {
    const std::string leaf = path.substr(path.rfind('/') + 1);
    return leaf.substr(0, leaf.find('.'));
}

// Clamped, since a file may have any time.
static int64_t nanoseconds(const timespec & time) {
    constexpr int64_t A_SECOND = 1000000000;
    return std::clamp<int64_t>(time.tv_sec, 0, MAX_FILE_TIME / A_SECOND - 1) * A_SECOND + time.tv_nsec;
}

read_result read_file(const std::string & path, file_header & header, file_facts & facts, state_bytes * data,
                      const sealer * seal) {
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
    if (begins_sealed(start, (size_t) n_start)) {
        facts.is_sealed = true;
        return seal ? read_sealed(*seal, file.get(), name_in(path), facts, header, data) : read_result::foreign;
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

read_result directory::read(const digest & key, file_header & header, file_facts & facts, state_bytes * data) const {
    const auto result = read_file(file_path(key), header, facts, data, seal.get());
    return result == read_result::missing && seal ? read_file(path_of_name(key), header, facts, data) : result;
}

void directory::mark_used(const digest & key) const {
    if (::utimensat(AT_FDCWD, file_path(key).c_str(), nullptr, AT_SYMLINK_NOFOLLOW) != 0 && seal) {
        ::utimensat(AT_FDCWD, path_of_name(key).c_str(), nullptr, AT_SYMLINK_NOFOLLOW);
    }
}

void set_file_time(const std::string & path, int64_t modified_ns) {
    constexpr int64_t A_SECOND = 1000000000;
    const timespec    time     = {(time_t) (modified_ns / A_SECOND), (long) (modified_ns % A_SECOND)};
    const timespec    both[2]  = {time, time};
    ::utimensat(AT_FDCWD, path.c_str(), both, AT_SYMLINK_NOFOLLOW);
}

} // namespace atlas::memory
