// Bytes of KV state, in buffers that are used again. Any thread; the token loop takes buffers here.
//
// A block of a 1B model is 8 MiB. Faulting in the pages of a fresh buffer of that size takes longer than the copy into
// it. So buffers come from a pool, are not zeroed, and go back to it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>
#include <vector>

namespace atlas {

// Takes a buffer of at least n_bytes, 64-byte aligned, with arbitrary content. Throws std::bad_alloc. Any thread; the
// lock that it takes is held only while a thread looks through a list.
void * take_buffer(size_t n_bytes);
void   give_buffer(void * buffer) noexcept;

// As std::allocator, over the pool; elements are not zeroed when none is given.
template <typename T> struct state_allocator {
    using value_type = T;

    state_allocator() = default;
    template <typename U> state_allocator(const state_allocator<U> &) {}

    T *  allocate(size_t n) { return static_cast<T *>(take_buffer(n * sizeof(T))); }
    void deallocate(T * buffer, size_t) noexcept { give_buffer(buffer); }

    template <typename U> void                   construct(U * at) { ::new (static_cast<void *>(at)) U; }
    template <typename U, typename... Args> void construct(U * at, Args &&... args) {
        ::new (static_cast<void *>(at)) U(std::forward<Args>(args)...);
    }

    friend bool operator==(const state_allocator &, const state_allocator &) { return true; }
    friend bool operator!=(const state_allocator &, const state_allocator &) { return false; }
};

using state_bytes = std::vector<uint8_t, state_allocator<uint8_t>>;

} // namespace atlas
