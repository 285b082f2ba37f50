// How a file gets to its place whole or not at all, and is read. Touches files; any thread, but never the token loop.
#pragma once

#include "file-descriptor.hpp"

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace atlas {

// Throws std::system_error: "cannot WHAT PATH: what the system says of the code".
[[noreturn]] void fail_on_file(const std::string & what, const std::string & path, int code);

// Makes a directory for this user only. Returns false where it was there; throws std::system_error.
bool make_directory(const std::string & path);

// Reads so many bytes, or up to the end of the file. Returns how many there were, or -1 with errno.
ssize_t read_all(int fd, uint8_t * to, size_t n_bytes, off_t offset);

// A file under a name of its own in a directory, removed unless it was renamed. It is locked as long as it is open, so that
// others do not take it for what a crash left. Members throw std::system_error.
class temporary_file {
  public:
    static constexpr char PREFIX[] = "atlas-";
    static constexpr char SUFFIX[] = ".tmp";

    explicit temporary_file(const std::string & directory);
    ~temporary_file();

    temporary_file(const temporary_file &)             = delete;
    temporary_file & operator=(const temporary_file &) = delete;

    void write(const void * bytes, size_t n_bytes, off_t offset) const;
    void sync() const;

    // Returns false, with errno, where that failed.
    bool rename(const std::string & target);

    // Gives it a second name, which no other file may have. Returns false, with errno, where that failed: EEXIST: another has.
    bool link(const std::string & target) const;

  private:
    std::string     path; // before fd, which fills it in
    file_descriptor fd;
};

} // namespace atlas
