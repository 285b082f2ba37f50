// The buffers that state_bytes uses again. One pool for the process, as entries may outlive their store.
#pragma once

#include "atlas-state-bytes.hpp"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace atlas::memory {

// Every member may be called from any thread.
class buffer_pool {
  public:
    static buffer_pool & instance();

    void * take(size_t n_bytes);
    void   give(void * buffer) noexcept;

    // Keeps at most max_idle bytes of buffers that nobody uses, and gets as many ready as fit of the size `expected`, if
    // that is one worth keeping; both in bytes. At first nothing is kept. Takes half a millisecond a MiB.
    void set_limits(size_t max_idle, size_t expected);

    // Gets buffers of the expected size ready, their pages faulted in, whenever there are fewer than half of what is
    // allowed; returns once `is_stopping` is true and wake() was called after that.
    void keep_stocked(const std::atomic<bool> & is_stopping);
    void wake();

  private:
    struct header {
        size_t   n_bytes; // without the header
        header * next;    // of those that are to be freed
    };

    std::mutex              mutex;
    std::condition_variable changed;
    std::vector<header *>   idle; // never grows beyond what was reserved: giving back must not fail
    size_t                  idle_bytes = 0;
    size_t                  max_idle   = 0;
    size_t                  expected   = 0;

    buffer_pool();

    static header * make(size_t n_bytes);
    static header * make_ready(size_t n_bytes);
    static void     free(header * first) noexcept;

    bool     has_room() const { return expected > 0 && idle_bytes + expected <= max_idle; }
    bool     is_low() const { return has_room() && idle_bytes < max_idle / 2; }
    header * remove(size_t index) noexcept;
    header * keep(header * buffer) noexcept;
    void     add_expected(std::unique_lock<std::mutex> & held);
};

// Stocks the pool in a thread of its own for as long as it lives.
class buffer_stocker {
  public:
    buffer_stocker() : thread([this] { buffer_pool::instance().keep_stocked(is_stopping); }) {}
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
