// The buffers that state_bytes uses again. One pool for the process, as entries may outlive their store; of several stores
// the one that set limits last decides how much is kept.
#pragma once

#include "atlas-state-bytes.hpp"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace atlas::memory {

// How much memory buffers map, in bytes, where the system's pages have this size: a power of two from 4 to 64 KiB.
struct page_sizes {
    static constexpr size_t HUGE_PAGE = 2 << 20;

    size_t page;

    size_t whole(size_t n_bytes) const { return (n_bytes + page - 1) / page * page; }

    // Smaller buffers are malloc's. Of a larger one, less than a sixteenth is lost by rounding up to whole pages.
    size_t min_kept() const { return 16 * page; }

    // A buffer shall begin on a huge page, so its mapping is made one huge page too large. These are the bytes before
    // and behind it that go back to the system.
    static std::pair<size_t, size_t> around_huge(uintptr_t begin) {
        const size_t before = (HUGE_PAGE - begin % HUGE_PAGE) % HUGE_PAGE;
        return {before, HUGE_PAGE - before};
    }
};

// Every member may be called from any thread.
class buffer_pool {
  public:
    static buffer_pool & instance();

    static const page_sizes & pages();

    void * take(size_t n_bytes);
    void   give(void * buffer) noexcept;

    // Keeps at most max_idle bytes of buffers that nobody uses, and gets n_ready buffers ready, as far as they fit, of
    // the size `expected`, if that is one worth keeping; both in bytes. At first nothing is kept. Takes half a
    // millisecond a MiB, and several where the kernel asks a hypervisor for each page.
    void set_limits(size_t max_idle, size_t expected, size_t n_ready);

    // Raises the number of buffers that keep_stocked() keeps ready, as far as they fit.
    void want_ready(size_t n_buffers);

    // Gets buffers of the expected size ready, their pages faulted in, when want_ready() asks for more and whenever
    // fewer than half are left; one a second while `is_busy`, as each takes milliseconds from whoever computes. Returns
    // once `is_stopping` is true and wake() was called after that.
    void keep_stocked(const std::atomic<bool> & is_stopping, const std::atomic<bool> & is_busy);
    void wake();

    // Bytes of buffers that nobody uses.
    size_t idle_bytes();

  private:
    struct header {
        size_t   n_bytes; // without the header
        bool     is_mapped; // not malloc's
        header * next; // of those that are to be freed
    };

    std::mutex              mutex;
    std::condition_variable changed;
    std::vector<header *>   idle; // never grows beyond its reserved size, so that giving back cannot fail
    size_t                  n_idle_bytes = 0;
    size_t                  max_idle     = 0;
    size_t                  expected     = 0;
    size_t                  n_ready      = 0;
    bool                    is_asked     = false; // to stock up, though more than half are left
    std::atomic<size_t>     n_mapped{0};

    buffer_pool();

    header * make(size_t n_bytes);
    header * make_ready(size_t n_bytes);
    void     free(header * first) noexcept;

    // Bytes of idle buffers with which so many are ready.
    size_t stock(size_t n_buffers) const {
        return expected > 0 ? std::min(n_buffers, max_idle / expected) * expected : 0;
    }
    bool     lacks(size_t n_buffers) const { return n_idle_bytes + expected <= stock(n_buffers); }
    bool     is_low() const { return expected > 0 && lacks(n_ready) && n_idle_bytes < stock(n_ready) / 2; }
    header * remove(size_t index) noexcept;
    header * keep(header * buffer) noexcept;
    void     add_expected(std::unique_lock<std::mutex> & held);
};

// Stocks the pool in a thread of its own for as long as it lives.
class buffer_stocker {
  public:
    // is_busy: something is computed; outlives the stocker.
    explicit buffer_stocker(const std::atomic<bool> & is_busy)
        : thread([this, &is_busy] { buffer_pool::instance().keep_stocked(is_stopping, is_busy); }) {}
    ~buffer_stocker() {
        is_stopping = true;
        buffer_pool::instance().wake();
        thread.join();
    }

  private:
    std::atomic<bool> is_stopping{false}; // before the thread, which reads it
    std::thread       thread;
};

} // namespace atlas::memory
