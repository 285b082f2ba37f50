// State as a zstd frame of level 1, its bytes shuffled first: in each piece of 256 KiB the first bytes of all numbers come
// before their second bytes. Numbers of one kind differ little in their exponents and much in the rest, which zstd then tells
// apart. Any thread but the loop's, as it takes time.
#pragma once

#include "atlas-state-bytes.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>

namespace atlas::memory {

constexpr uint32_t MAX_STRIDE = 64;
// A frame of a byte stands for at most so many. More would let a few bytes from elsewhere take much RAM and time.
constexpr uint64_t MAX_ZSTD_RATIO = 64;

struct shuffled_zstd {
    uint32_t    stride = 1; // bytes of a number, or of a group of numbers that share a scale; 1: not shuffled
    state_bytes frame;
};

// Nothing where that is no smaller by a fortieth, or smaller than MAX_ZSTD_RATIO allows. The stride is the best of some that
// types of KV have, tried on a part. Throws std::bad_alloc.
std::optional<shuffled_zstd> compress(const uint8_t * data, size_t n_bytes);

// Fills `to` with exactly n_bytes. False where the frame holds anything else, needs a window of more than 256 KiB, or the
// stride is none. Throws std::bad_alloc.
bool decompress(const uint8_t * frame, size_t frame_bytes, uint32_t stride, uint8_t * to, size_t n_bytes);

} // namespace atlas::memory
