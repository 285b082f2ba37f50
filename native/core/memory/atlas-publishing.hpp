// How a thread that wants all finished work published talks to the loop that publishes it, without a lock.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>

namespace atlas {

// The loop makes passes over its slots. A pass that is asked for urgently publishes all that idle slots hold, however long
// that takes; a pass that leaves all slots idle has done so anyway.
class publishing {
  public:
    // The loop: a slot was given a task.
    void on_launch() { all_idle = false; }

    // The loop: what the pass that now begins has to answer; to be handed to end_pass.
    uint64_t begin_pass() const { return asked; }
    bool     is_urgent() const { return urgent > answered; }

    // The loop: the pass that began with `answering` is over. is_complete: idle slots hold nothing that is to be published.
    void end_pass(uint64_t answering, bool is_complete, bool is_idle) {
        if (is_complete) {
            answered = answering;
        }
        all_idle = is_idle;
    }

    // Any other thread: waits until what finished before the call is published. Who is not urgent waits until passes
    // have done so that no request has to wait for. Returns false when timeout_s seconds went by. Looks again every
    // millisecond: flushing is rare, and the loop must not have to wake anybody.
    bool wait(double timeout_s, bool is_urgent) {
        const auto     deadline = std::chrono::steady_clock::now() + std::chrono::duration<double>(timeout_s);
        const uint64_t mine     = ++asked;
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
    std::atomic<uint64_t> asked{0};
    std::atomic<uint64_t> urgent{0}; // the last of them that was
    std::atomic<uint64_t> answered{0};
    std::atomic<bool>     all_idle{true};
};

} // namespace atlas
