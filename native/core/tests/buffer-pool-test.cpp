// Where buffers of state come from: not from malloc, whose heaps they would leave full of holes.
#include "atlas-state-bytes.hpp"
#include "buffer-pool.hpp"
#include "cases.hpp"

#include <malloc.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <vector>

using atlas::state_bytes;

constexpr size_t KiB = 1024, MiB = 1024 * KiB;

// What malloc has from the system, in bytes.
static size_t heap_bytes() {
    const auto info = ::mallinfo2();
    return info.arena + info.hblkhd;
}

static std::vector<state_bytes> take(size_t n, size_t n_bytes, size_t more_each) {
    std::vector<state_bytes> buffers(n);
    for (size_t i = 0; i < n; i++) {
        buffers[i].resize(n_bytes + i * more_each);
        buffers[i].front() = buffers[i].back() = (uint8_t) i;
    }
    return buffers;
}

static void check(const std::vector<state_bytes> & buffers) {
    for (size_t i = 0; i < buffers.size(); i++) {
        CHECK(buffers[i].front() == (uint8_t) i && buffers[i].back() == (uint8_t) i);
    }
}

CASE(buffers_are_not_of_a_heap) {
    if (cases::IS_SANITIZED) {
        return;
    }
    const size_t before  = heap_bytes();
    auto         buffers = take(400, 64 * KiB, 10 * KiB);
    for (size_t i = 0; i < buffers.size(); i += 2) {
        buffers[i] = state_bytes();
    }
    buffers = take(400, 64 * KiB, 9 * KiB);
    check(buffers);
    CHECK(heap_bytes() < before + MiB);
}

CASE(buffers_leave_mappings_to_others) {
    if (cases::IS_SANITIZED) {
        return;
    }
    constexpr size_t MOST    = 16384;
    const size_t     before  = heap_bytes();
    const auto       buffers = take(MOST + 100, 64 * KiB, 0);
    check(buffers);
    const size_t surplus = heap_bytes() - before;
    CHECK(surplus >= 100 * 64 * KiB && surplus < 200 * 64 * KiB);
}

// What is unmapped must be whole pages, on kernels with pages of 16 or 64 KiB as well.
CASE(buffers_are_whole_pages) {
    for (const size_t page : {4 * KiB, 16 * KiB, 64 * KiB}) {
        const atlas::memory::page_sizes pages = {page};
        for (const size_t n_bytes : {size_t(1), page, page + 1, 8 * MiB + 64}) {
            CHECK(pages.whole(n_bytes) % page == 0);
            CHECK(pages.whole(n_bytes) >= n_bytes && pages.whole(n_bytes) < n_bytes + page);
        }
        for (uintptr_t begin = 3 * page; begin < 6 * MiB; begin += page) {
            const auto [before, after] = pages.around_huge(begin);
            CHECK((begin + before) % pages.HUGE_PAGE == 0 && before + after == pages.HUGE_PAGE);
            CHECK(before % page == 0 && after % page == 0);
        }
    }
    CHECK(atlas::memory::buffer_pool::pages().page == (size_t) ::getpagesize());
}
