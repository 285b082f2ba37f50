// The thread that takes what is written and removed next from the catalog, and does it. It touches files without the
// store's mutex, on its thread of low priority; the store makes it, and ends it.
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
    std::string         logged; // the problem that was logged last; empty: none, or it has ended
    low_priority_thread background; // for work that takes long
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
