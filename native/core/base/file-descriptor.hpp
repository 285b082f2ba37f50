// An open file that closes itself. One thread at a time.
#pragma once

#include <unistd.h>

#include <utility>

namespace atlas {

class file_descriptor {
  public:
    explicit file_descriptor(int fd) : fd(fd) {}
    file_descriptor(file_descriptor && other) noexcept : fd(std::exchange(other.fd, -1)) {}
    file_descriptor(const file_descriptor &)             = delete;
    file_descriptor & operator=(const file_descriptor &) = delete;
    ~file_descriptor() {
        if (fd >= 0) {
            ::close(fd);
        }
    }

    bool is_open() const { return fd >= 0; }
    int  get() const { return fd; }

  private:
    int fd;
};

} // namespace atlas
