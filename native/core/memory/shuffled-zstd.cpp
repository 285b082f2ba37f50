#include "shuffled-zstd.hpp"

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <vector>
#include <zstd.h>

namespace atlas::memory {

namespace {

constexpr size_t PIECE      = 256 << 10;
constexpr int    LEVEL      = 1;
constexpr int    WINDOW_LOG = 18;

// Bytes of f16 and bf16, of f32, and of the blocks of q4_0, q4_1, q5_0, q5_1 and q8_0.
constexpr uint32_t STRIDES[] = {1, 2, 4, 18, 20, 22, 24, 34};

struct freed {
    void operator()(ZSTD_CCtx * context) const { ZSTD_freeCCtx(context); }
    void operator()(ZSTD_DCtx * context) const { ZSTD_freeDCtx(context); }
};
using compressor   = std::unique_ptr<ZSTD_CCtx, freed>;
using decompressor = std::unique_ptr<ZSTD_DCtx, freed>;

compressor make_compressor() {
    compressor context(ZSTD_createCCtx());
    if (!context) {
        throw std::bad_alloc();
    }
    ZSTD_CCtx_setParameter(context.get(), ZSTD_c_compressionLevel, LEVEL);
    ZSTD_CCtx_setParameter(context.get(), ZSTD_c_windowLog, WINDOW_LOG);
    return context;
}

// What does not fill a last group stays behind the others.
void shuffle(const uint8_t * from, size_t n_bytes, uint32_t stride, uint8_t * to) {
    const size_t n = n_bytes / stride;
    for (size_t i = 0; i < stride; i++) {
        uint8_t * const       plane = to + i * n;
        const uint8_t * const first = from + i;
        for (size_t j = 0; j < n; j++) {
            plane[j] = first[j * stride];
        }
    }
    std::memcpy(to + n * stride, from + n * stride, n_bytes - n * stride);
}

void unshuffle(const uint8_t * from, size_t n_bytes, uint32_t stride, uint8_t * to) {
    const size_t n = n_bytes / stride;
    for (size_t i = 0; i < stride; i++) {
        const uint8_t * const plane = from + i * n;
        uint8_t * const       first = to + i;
        for (size_t j = 0; j < n; j++) {
            first[j * stride] = plane[j];
        }
    }
    std::memcpy(to + n * stride, from + n * stride, n_bytes - n * stride);
}

// Adds a shuffled piece to a frame. Where there are enough of them, each kind of bytes is in blocks of its own: those that are
// random then stay as they are, which takes no time to undo. False where there is no room.
bool add(ZSTD_CCtx * context, const uint8_t * shuffled, size_t n_bytes, uint32_t stride, bool is_last,
         ZSTD_outBuffer & out) {
    constexpr size_t ENOUGH = 16 << 10;
    const size_t     plane  = n_bytes / stride >= ENOUGH ? n_bytes / stride : n_bytes;
    for (size_t at = 0; at < n_bytes;) {
        const bool    is_end = n_bytes - at < 2 * plane; // what fills no group goes with the last
        const size_t  n      = is_end ? n_bytes - at : plane;
        const auto    how    = is_end && is_last ? ZSTD_e_end : ZSTD_e_flush;
        ZSTD_inBuffer in     = {shuffled + at, n, 0};
        size_t        left   = 1;
        while (left > 0) {
            const size_t before = out.pos + in.pos;
            left                = ZSTD_compressStream2(context, &out, &in, how);
            if (ZSTD_isError(left) || (left > 0 && out.pos + in.pos == before)) {
                return false;
            }
        }
        at += n;
    }
    return true;
}

// The stride by which a part in the middle becomes smallest; 0 where it does not by any.
uint32_t best_stride(ZSTD_CCtx * context, const uint8_t * data, size_t n_bytes) {
    constexpr size_t     PART = 64 << 10;
    const size_t         n    = std::min(n_bytes, PART);
    const uint8_t *      part = data + (n_bytes - n) / 2;
    std::vector<uint8_t> shuffled(n), compressed(ZSTD_compressBound(n) + MAX_STRIDE * 64);
    size_t               least = n - n / 40;
    uint32_t             best  = 0;
    for (const uint32_t stride : STRIDES) {
        shuffle(part, n, stride, shuffled.data());
        ZSTD_outBuffer out = {compressed.data(), compressed.size(), 0};
        ZSTD_CCtx_reset(context, ZSTD_reset_session_only);
        if (add(context, shuffled.data(), n, stride, true, out) && out.pos < least) {
            least = out.pos;
            best  = stride;
        }
    }
    ZSTD_CCtx_reset(context, ZSTD_reset_session_only);
    return best;
}

} // namespace

std::optional<shuffled_zstd> compress(const uint8_t * data, size_t n_bytes) {
    const auto    context = make_compressor();
    shuffled_zstd made;
    made.stride = n_bytes > 0 ? best_stride(context.get(), data, n_bytes) : 0;
    if (made.stride == 0) {
        return std::nullopt;
    }
    made.frame.resize(n_bytes - n_bytes / 40);
    std::vector<uint8_t> piece(std::min(PIECE, n_bytes));
    ZSTD_outBuffer       out = {made.frame.data(), made.frame.size(), 0};
    ZSTD_CCtx_setPledgedSrcSize(context.get(), n_bytes);
    for (size_t done = 0; done < n_bytes;) {
        const size_t n = std::min(PIECE, n_bytes - done);
        shuffle(data + done, n, made.stride, piece.data());
        done += n;
        if (!add(context.get(), piece.data(), n, made.stride, done == n_bytes, out)) {
            return std::nullopt; // it became no smaller
        }
    }
    if (out.pos * MAX_ZSTD_RATIO < n_bytes) {
        return std::nullopt;
    }
    made.frame.resize(out.pos);
    return made;
}

bool decompress(const uint8_t * frame, size_t frame_bytes, uint32_t stride, uint8_t * to, size_t n_bytes) {
    if (stride == 0 || stride > MAX_STRIDE) {
        return false;
    }
    const decompressor context(ZSTD_createDCtx());
    if (!context) {
        throw std::bad_alloc();
    }
    ZSTD_DCtx_setParameter(context.get(), ZSTD_d_windowLogMax, WINDOW_LOG);
    std::vector<uint8_t> piece(std::min(PIECE, n_bytes));
    ZSTD_inBuffer        in   = {frame, frame_bytes, 0};
    size_t               left = 1;
    for (size_t done = 0; done < n_bytes;) {
        const size_t   n   = std::min(PIECE, n_bytes - done);
        ZSTD_outBuffer out = {piece.data(), n, 0};
        while (out.pos < n) {
            const size_t before = in.pos + out.pos;
            left                = ZSTD_decompressStream(context.get(), &out, &in);
            if (ZSTD_isError(left) || (out.pos < n && (left == 0 || in.pos + out.pos == before))) {
                return false;
            }
        }
        unshuffle(piece.data(), n, stride, to + done);
        done += n;
    }
    // a frame's end may be in bytes that have not been looked at yet
    ZSTD_outBuffer none = {nullptr, 0, 0};
    if (left != 0) {
        left = ZSTD_decompressStream(context.get(), &none, &in);
    }
    return left == 0 && in.pos == in.size;
}

} // namespace atlas::memory
