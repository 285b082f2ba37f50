// The thread that decides what is written and removed next, and has it done.
#pragma once

#include "low-priority-thread.hpp"
#include "shared-state.hpp"

#include <functional>
#include <thread>

namespace atlas::memory {

class writer {
  public:
    explicit writer(shared_state & state) : state(state), thread([this] { run(); }) {}
    ~writer() {
        state.stop_all();
        thread.join();
    }

  private:
    using lock  = std::unique_lock<std::mutex>;
    using clock = std::chrono::steady_clock;

    shared_state &      state;
    std::string         logged; // the problem that the log has; empty: none
    low_priority_thread background; // for whatever takes long
    std::thread         thread; // last: it uses the others

    template <typename F> std::string unlocked(lock & held, F action, const std::function<void()> & meanwhile = {});

    void run();
    void act(lock & held);
    void log_trouble(lock & held);
    bool step(lock & held);
    void rest(clock::duration worked);
    void write(lock & held, const disk_job & job);
    bool trim(lock & held);
    bool remove(lock & held, std::list<stored_file> files);
    bool sync(lock & held);
    void failed(std::string problem);
    void succeeded();
};

} // namespace atlas::memory
