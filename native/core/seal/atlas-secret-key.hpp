// A secret of 32 bytes that the operator gives: of this machine's disk, or of a fleet of servers. Read once, at the start.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace atlas {

constexpr size_t SECRET_BYTES = 32;

// Not copyable, so that there is one place to wipe, which the destructor does. Immutable once made: any thread.
class secret_key {
  public:
    explicit secret_key(const std::array<uint8_t, SECRET_BYTES> & bytes) : bytes(bytes) {}
    secret_key(secret_key && other) noexcept;
    secret_key(const secret_key &)             = delete;
    secret_key & operator=(const secret_key &) = delete;
    ~secret_key();

    const uint8_t *  data() const { return bytes.data(); }
    std::string_view text() const { return {reinterpret_cast<const char *>(bytes.data()), bytes.size()}; }

  private:
    std::array<uint8_t, SECRET_BYTES> bytes;
};

// Overwrites memory so that no compiler leaves it out.
void wipe(void * bytes, size_t n_bytes) noexcept;

// Whether the bytes are equal; takes the same time wherever they differ.
bool is_equal_secret(const uint8_t * some, const uint8_t * other, size_t n_bytes) noexcept;

// The members below throw std::invalid_argument with one line that begins with `setting`, and never has a byte of the key.

// 32 bytes as they are, 64 hexadecimal digits, or 44 digits of base64, which may end in a line feed.
secret_key parse_key(std::string_view content, const std::string & setting);

// Warns in the log where other users may read the file: they may in containers, which mount secrets so.
secret_key read_key_file(const std::string & path, const std::string & setting);

// Runs a line of the shell (/bin/sh -c), whose standard output is the key. What it writes to its standard error is in the
// exception where it fails, and in the log otherwise. It is killed, with what it started, at the end of the patience.
secret_key read_key_of_command(const std::string & command, const std::string & setting,
                               std::chrono::milliseconds patience = std::chrono::seconds(30));

} // namespace atlas
