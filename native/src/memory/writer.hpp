// The thread that writes and removes files.
#pragma once

#include "shared-state.hpp"

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

    shared_state & state;
    std::string    logged; // the problem that the log has; empty: none
    std::thread    thread; // last: it uses the others

    void run();
    void log_trouble(lock & held);
    bool step(lock & held);
    void rest(clock::duration worked);
    void write(lock & held, const disk_job & job);
    bool remove(lock & held, const std::vector<doomed_file> & files);
    bool sync(lock & held);
    void failed(const std::string & problem);
    void succeeded();
};

} // namespace atlas::memory
