// How a thread that waits for write-back talks to the loop, which does it. Touches atomics only; the loop never waits
// here.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <thread>

namespace atlas {

// The loop makes passes over its slots. An urgent pass writes back all that idle slots hold, however long that takes;
// other passes end when their time is over. A pass that leaves all slots idle has written back everything, unless a block takes
// long to copy and a request came meanwhile.
class write_back_passes {
  public:
    // Any other thread: there will be a task for the loop.
    void on_arrival() { n_arrived++; }

    // The loop: a slot was given a task, or state that is to be kept.
    void on_launch() {
        all_idle = false;
        n_noticed.store(n_arrived);
    }

    // The loop: whether a request came since the last task was launched. It may be a moment before its task is posted, and one
    // whose client left never is: then this holds until the next.
    bool is_called_away() const { return n_arrived != n_noticed; }

    // The loop: the number of the last request that the pass which now begins answers, for end_pass.
    uint64_t begin_pass() const { return requested; }
    bool     is_urgent() const { return urgent > answered; }

    // The loop: the pass that began with `answering` is over. is_complete: all that idle slots hold is written back.
    void end_pass(uint64_t answering, bool is_complete, bool is_idle) {
        if (is_complete) {
            answered = answering;
        }
        all_idle = is_idle && is_complete;
    }

    // The loop: how many slots hold state that is not what a prefill would give, and is not kept. Any thread may ask.
    void   set_inexact(size_t n_slots) { inexact = n_slots; }
    size_t count_inexact() const { return inexact; }

    // Any other thread: waits until what slots had finished before the call is written back. Without is_urgent it waits
    // for passes that keep to their time, so that no generation is held up for it. Returns false when timeout_s seconds
    // went by. It polls every millisecond: flushing is rare, and the loop must not have to wake anybody.
    bool wait(double timeout_s, bool is_urgent) {
        const auto     deadline = std::chrono::steady_clock::now() + std::chrono::duration<double>(timeout_s);
        const uint64_t mine     = ++requested;
        for (uint64_t last = urgent; is_urgent && last < mine && !urgent.compare_exchange_weak(last, mine);) {
        }
        while (answered < mine && !all_idle) {
            if (std::chrono::steady_clock::now() > deadline) {
                return false;
            }
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        return true;
    }

  private:
    std::atomic<uint64_t> requested{0};
    std::atomic<uint64_t> urgent{0}; // the last request that was urgent
    std::atomic<uint64_t> answered{0};
    std::atomic<uint64_t> n_arrived{0};
    std::atomic<uint64_t> n_noticed{0}; // the loop's
    std::atomic<bool>     all_idle{true};
    std::atomic<size_t>   inexact{0};
};

} // namespace atlas
