#include "buffer-pool.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

namespace atlas {

void * take_buffer(size_t n_bytes) { return memory::buffer_pool::instance().take(n_bytes); }
void   give_buffer(void * buffer) noexcept { memory::buffer_pool::instance().give(buffer); }

} // namespace atlas

namespace atlas::memory {

constexpr size_t ALIGNMENT    = 64;
constexpr size_t HEADER_BYTES = ALIGNMENT;
constexpr size_t MAX_WASTE    = 8;         // an eighth of a buffer may go unused
constexpr size_t MAX_IDLE     = 1024;      // buffers

// Linux allows a process 65,530 mappings by default; other code needs some of them.
constexpr size_t MAX_MAPPED = 16384;

const page_sizes & buffer_pool::pages() {
    static const page_sizes of_system = {(size_t) ::sysconf(_SC_PAGESIZE)};
    return of_system;
}

buffer_pool::buffer_pool() { idle.reserve(MAX_IDLE); }

buffer_pool & buffer_pool::instance() {
    static buffer_pool & pool = *new buffer_pool; // never destroyed: entries may be freed at any time until the end
    return pool;
}

// Gives mapped pages back. Unmapping a part divides a mapping, which fails at the limit of mappings; then only the
// memory behind the pages goes back.
static void unmap(void * begin, size_t n_bytes) noexcept {
    if (n_bytes > 0 && ::munmap(begin, n_bytes) != 0) {
        ::madvise(begin, n_bytes, MADV_DONTNEED);
    }
}

// Maps n_bytes, whole pages, that begin on a huge page. A huge page faults in several times faster than as many small
// pages.
static void * map_huge(size_t n_bytes) {
    const size_t n_mapped = n_bytes + page_sizes::HUGE_PAGE;
    void * const mapped   = ::mmap(nullptr, n_mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) {
        throw std::bad_alloc();
    }
    const auto [before, after] = page_sizes::around_huge(reinterpret_cast<uintptr_t>(mapped));
    uint8_t * const begin      = static_cast<uint8_t *>(mapped) + before;
    unmap(mapped, before);
    unmap(begin + n_bytes, after);
    ::madvise(begin, n_bytes, MADV_HUGEPAGE); // where there are none it does not matter
    return begin;
}

static void * map_pages(size_t n_bytes) {
    void * const mapped = ::mmap(nullptr, n_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return mapped == MAP_FAILED ? nullptr : mapped;
}

static size_t mapped_bytes(size_t n_bytes) { return buffer_pool::pages().whole(HEADER_BYTES + n_bytes); }

// Large buffers are mapped one by one: in malloc's arenas, buffers of many sizes that live for minutes would leave
// holes, and the arenas would grow for hours (ADR 19).
buffer_pool::header * buffer_pool::make(size_t n_bytes) {
    header * buffer = nullptr;
    if (n_bytes >= page_sizes::HUGE_PAGE) {
        buffer = static_cast<header *>(map_huge(mapped_bytes(n_bytes)));
    } else if (n_bytes >= pages().min_kept() && n_mapped < MAX_MAPPED) {
        buffer = static_cast<header *>(map_pages(mapped_bytes(n_bytes)));
    }
    const bool is_mapped = buffer != nullptr;
    if (!is_mapped) {
        buffer = static_cast<header *>(::operator new(HEADER_BYTES + n_bytes, std::align_val_t{ALIGNMENT}));
    }
    n_mapped += is_mapped;
    buffer->is_mapped = is_mapped;
    buffer->n_bytes   = n_bytes;
    buffer->next      = nullptr;
    return buffer;
}

buffer_pool::header * buffer_pool::make_ready(size_t n_bytes) {
    header * buffer = make(n_bytes);
    for (size_t at = HEADER_BYTES; at < HEADER_BYTES + n_bytes; at += pages().page) {
        reinterpret_cast<volatile uint8_t *>(buffer)[at] = 0;
    }
    return buffer;
}

void buffer_pool::free(header * first) noexcept {
    while (first) {
        header * buffer = std::exchange(first, first->next);
        if (buffer->is_mapped) {
            unmap(buffer, mapped_bytes(buffer->n_bytes));
            n_mapped--;
        } else {
            ::operator delete(buffer, std::align_val_t{ALIGNMENT});
        }
    }
}

buffer_pool::header * buffer_pool::remove(size_t index) noexcept {
    header * buffer = std::exchange(idle[index], idle.back());
    idle.pop_back();
    n_idle_bytes -= buffer->n_bytes;
    return buffer;
}

void * buffer_pool::take(size_t n_bytes) {
    header * buffer = nullptr;
    if (n_bytes >= pages().min_kept()) {
        n_bytes       = pages().whole(n_bytes);
        bool must_ask = false;
        {
            const std::lock_guard<std::mutex> held(mutex);
            size_t                            best = idle.size();
            for (size_t i = 0; i < idle.size(); i++) {
                const size_t size = idle[i]->n_bytes;
                if (size >= n_bytes && size - n_bytes <= size / MAX_WASTE &&
                    (best == idle.size() || size < idle[best]->n_bytes)) {
                    best = i;
                }
            }
            if (best < idle.size()) {
                buffer = remove(best);
            }
            must_ask = is_low();
        }
        if (must_ask) {
            changed.notify_all();
        }
    }
    if (!buffer) {
        buffer = make(n_bytes);
    }
    return reinterpret_cast<uint8_t *>(buffer) + HEADER_BYTES;
}

// Keeps a buffer. Returns those that are to be freed for it, itself among them where there is no room.
buffer_pool::header * buffer_pool::keep(header * buffer) noexcept {
    header *                          surplus = nullptr;
    const std::lock_guard<std::mutex> held(mutex);
    while (!idle.empty() && (n_idle_bytes + buffer->n_bytes > max_idle || idle.size() == idle.capacity())) {
        const auto other = std::find_if(idle.begin(), idle.end(), [&](header * b) { return b->n_bytes != expected; });
        if (other == idle.end()) {
            break; // those of the expected size stay
        }
        header * victim = remove(other - idle.begin());
        victim->next    = std::exchange(surplus, victim);
    }
    if (n_idle_bytes + buffer->n_bytes > max_idle || idle.size() == idle.capacity()) {
        buffer->next = surplus;
        return buffer;
    }
    idle.push_back(buffer);
    n_idle_bytes += buffer->n_bytes;
    return surplus;
}

void buffer_pool::give(void * data) noexcept {
    if (data) {
        auto * buffer = reinterpret_cast<header *>(static_cast<uint8_t *>(data) - HEADER_BYTES);
        buffer->next  = nullptr;
        free(buffer->n_bytes < pages().min_kept() ? buffer : keep(buffer));
    }
}

void buffer_pool::set_limits(size_t new_max_idle, size_t new_expected, size_t new_n_ready) {
    std::unique_lock<std::mutex> held(mutex);
    max_idle = new_max_idle;
    expected = new_expected >= pages().min_kept() ? pages().whole(new_expected) : 0;
    n_ready  = std::max(n_ready, new_n_ready);
    while (expected > 0 && lacks(new_n_ready)) {
        add_expected(held);
    }
    is_asked = n_ready > new_n_ready;
    changed.notify_all();
}

void buffer_pool::want_ready(size_t n_buffers) {
    const std::lock_guard<std::mutex> held(mutex);
    is_asked |= n_buffers > n_ready;
    n_ready = std::max(n_ready, n_buffers);
    changed.notify_all();
}

size_t buffer_pool::idle_bytes() {
    const std::lock_guard<std::mutex> held(mutex);
    return n_idle_bytes;
}

// Drops the lock meanwhile.
void buffer_pool::add_expected(std::unique_lock<std::mutex> & held) {
    const size_t n_bytes = expected;
    bool         is_made = true;
    held.unlock();
    try {
        free(keep(make_ready(n_bytes)));
    } catch (const std::bad_alloc &) { // then take() makes the buffer when one is needed
        is_made = false;
    }
    held.lock();
    expected = is_made ? expected : 0;
}

void buffer_pool::keep_stocked(const std::atomic<bool> & is_stopping, const std::atomic<bool> & is_busy) {
    using ms = std::chrono::milliseconds;
    constexpr ms AFTER{300}; // the thread that took buffers is about to compute; stocking would slow it down
    constexpr ms BETWEEN{2};
    constexpr ms BUSY{1000};

    std::unique_lock<std::mutex> held(mutex);
    const auto pause = [&](auto time) { changed.wait_for(held, time, [&] { return is_stopping.load(); }); };
    while (!is_stopping) {
        changed.wait(held, [&] { return is_stopping || is_asked || is_low(); });
        if (!std::exchange(is_asked, false)) {
            pause(AFTER);
        }
        while (!is_stopping && expected > 0 && lacks(n_ready)) {
            pause(is_busy ? BUSY : BETWEEN);
            add_expected(held);
        }
    }
}

void buffer_pool::wake() {
    // without the lock the stocker could be between its look at is_stopping and its wait, and miss this
    const std::lock_guard<std::mutex> held(mutex);
    changed.notify_all();
}

} // namespace atlas::memory
