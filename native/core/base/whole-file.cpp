#include "whole-file.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <system_error>

namespace atlas {

void fail_on_file(const std::string & what, const std::string & path, int code) {
    throw std::system_error(code, std::generic_category(), "cannot " + what + " " + path);
}

bool make_directory(const std::string & path) {
    if (::mkdir(path.c_str(), 0700) == 0) {
        return true;
    }
    const int code = errno;
    if (std::error_code ignored; std::filesystem::is_directory(path, ignored)) {
        return false;
    }
    fail_on_file("make directory", path, code == EEXIST ? ENOTDIR : code);
}

// Returns how many bytes there were, or -1.
ssize_t read_all(int fd, uint8_t * to, size_t n_bytes, off_t offset) {
    size_t done = 0;
    while (done < n_bytes) {
        const ssize_t n = ::pread(fd, to + done, n_bytes - done, offset + (off_t) done);
        if (n < 0 && errno != EINTR) {
            return -1;
        }
        if (n == 0) {
            break;
        }
        done += n > 0 ? n : 0;
    }
    return (ssize_t) done;
}

namespace {

void write_all(int fd, const uint8_t * bytes, size_t n_bytes, off_t offset, const std::string & path) {
    for (size_t done = 0; done < n_bytes;) {
        const ssize_t n = ::pwrite(fd, bytes + done, n_bytes - done, offset + (off_t) done);
        if (n < 0 && errno != EINTR) {
            fail_on_file("write", path, errno);
        }
        done += n > 0 ? n : 0;
    }
}

// Opens a new file and locks it, so that other servers do not take it for a leftover. Some file systems have no locks;
// the file is used without one there.
file_descriptor open_temporary(const std::string & directory, std::string & path) {
    while (true) {
        path = directory + "/" + temporary_file::PREFIX + "XXXXXX" + temporary_file::SUFFIX;
        file_descriptor file(::mkostemps(path.data(), sizeof(temporary_file::SUFFIX) - 1, O_CLOEXEC));
        if (!file.is_open()) {
            fail_on_file("make a file in", directory, errno);
        }
        const bool  is_taken = ::flock(file.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
        struct stat info;
        if (!is_taken && (::fstat(file.get(), &info) != 0 || info.st_nlink > 0)) {
            return file;
        }
        // another server took the file for a leftover before it was locked
    }
}

} // namespace

temporary_file::temporary_file(const std::string & directory) : fd(open_temporary(directory, path)) {}

temporary_file::~temporary_file() {
    if (!path.empty()) {
        ::unlink(path.c_str());
    }
}

void temporary_file::write(const void * bytes, size_t n_bytes, off_t offset) const {
    write_all(fd.get(), static_cast<const uint8_t *>(bytes), n_bytes, offset, path);
}

void temporary_file::sync() const {
    if (::fdatasync(fd.get()) != 0) {
        fail_on_file("sync", path, errno);
    }
}

// A file system on the network may do it, lose the answer, and say at the second try that the name is taken.
bool temporary_file::link(const std::string & target) const {
    if (::link(path.c_str(), target.c_str()) == 0) {
        return true;
    }
    const int   code = errno;
    struct stat info;
    const bool  is_done = code == EEXIST && ::fstat(fd.get(), &info) == 0 && info.st_nlink > 1;
    errno               = code;
    return is_done;
}

bool temporary_file::rename(const std::string & target) {
    if (::rename(path.c_str(), target.c_str()) != 0) {
        return false;
    }
    path.clear();
    return true;
}

} // namespace atlas
