// Seals values: nobody who lacks the secret can read one, change one, or pass one for another. AES-256-GCM (NIST SP
// 800-38D) in chunks, as the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár 2015) and the age format have it, by
// OpenSSL's libcrypto. docs/memory-format.md has the bytes. Touches no file.
//
// Each value has a key of its own, derived by HKDF (RFC 5869) from the secret and a random salt of 32 bytes, and the nonces
// within it are counted: so none repeats, however many values a fleet writes. The name of the value is associated data.
#pragma once

#include "atlas-secret-key.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace atlas {

// Why this build seals nothing: a line that says what to install; empty: it does.
std::string sealing_is_missing();

constexpr size_t SEAL_HEAD_BYTES = 64;
constexpr size_t SEAL_TAG_BYTES  = 16; // behind each chunk
constexpr size_t SEAL_CHUNK_BYTES =
    256 * 1024; // of the plain text; the first chunk has any length, the last may be shorter
constexpr size_t SEAL_NAME_BYTES = 32;
constexpr size_t MAX_FIRST_CHUNK = (size_t) 1 << 30; // bytes

using seal_head = std::array<uint8_t, SEAL_HEAD_BYTES>;
using seal_tag  = std::array<uint8_t, SEAL_TAG_BYTES>;
using seal_name = std::array<uint8_t, SEAL_NAME_BYTES>;

// The bytes of a sealed value with so many in its first chunk, and so many behind that.
constexpr uint64_t sealed_bytes(uint64_t n_first, uint64_t n_rest = 0) {
    return SEAL_HEAD_BYTES + n_first + SEAL_TAG_BYTES + n_rest +
           (n_rest + SEAL_CHUNK_BYTES - 1) / SEAL_CHUNK_BYTES * SEAL_TAG_BYTES;
}

// What n_sealed bytes behind the first chunk's tag hold: chunks, each with its tag. Nothing where no value has so many.
struct sealed_rest {
    uint64_t n_plain  = 0;
    uint64_t n_chunks = 0;
};
std::optional<sealed_rest> sealed_rest_of(uint64_t n_sealed);

// Whether the bytes, some 8 at least, begin as a sealed value does.
bool begins_sealed(const void * bytes, size_t n_bytes);

enum class unsealed : uint8_t {
    good,
    foreign, // no sealed value, of another version, or of another secret
    damaged, // sealed by this secret, but changed since, cut off, or a value of another name
};

// A secret for one use of another, which tells nothing of that one. Throws std::runtime_error where sealing_is_missing().
secret_key derive_key(const secret_key & secret, std::string_view use);

class sealed_chunks;

// What one use of a secret seals with; those of different uses have nothing in common. Immutable: any thread.
class sealer {
  public:
    // use: a short text that names it. Throws std::runtime_error where sealing_is_missing(), or OpenSSL does not work.
    sealer(const secret_key & secret, std::string_view use);

    // HMAC-SHA-256 of a text: a name that tells nothing of it to who lacks the secret.
    seal_name name_of(std::string_view text) const;

    // All members may throw std::bad_alloc; those that seal throw std::runtime_error where the system has no random bytes.

    // A small value, as one chunk.
    std::string seal(std::string_view name, std::string_view bytes) const;
    unsealed    unseal(std::string_view name, std::string_view sealed, std::string & bytes) const;

    // A value in chunks, with n_first bytes, at most MAX_FIRST_CHUNK, in the first.
    sealed_chunks begin(std::string_view name, size_t n_first) const;

    // The same of a value that is there. n_first is filled in where it is good: what the head says, which is not proven
    // before the first chunk is unsealed.
    unsealed begin_reading(std::string_view name, const seal_head & head, size_t & n_first,
                           std::optional<sealed_chunks> & chunks) const;

  private:
    secret_key              values;
    secret_key              names;
    std::array<uint8_t, 16> id; // tells the secret's values from those of others
};

// Seals or unseals the chunks of one value, in any order. One thread at a time.
class sealed_chunks {
  public:
    sealed_chunks(const secret_key & values, const seal_head & head, std::string_view name);
    sealed_chunks(sealed_chunks &&) noexcept;
    sealed_chunks & operator=(sealed_chunks &&) noexcept;
    ~sealed_chunks();

    const seal_head & head() const { return begin; }

    // Both may throw std::bad_alloc. `to` may be where the bytes are. No chunk may be sealed twice with other bytes.
    void seal(uint64_t number, bool is_last, const uint8_t * bytes, size_t n_bytes, uint8_t * to, uint8_t * tag);

    // In place. False: the chunk is not as it was sealed, and the bytes are worth nothing.
    bool unseal(uint64_t number, bool is_last, uint8_t * bytes, size_t n_bytes, const uint8_t * tag);

  private:
    struct cipher;
    seal_head               begin;
    std::string             name;
    std::unique_ptr<cipher> self;

    void start(bool seals, uint64_t number, bool is_last);
};

} // namespace atlas
