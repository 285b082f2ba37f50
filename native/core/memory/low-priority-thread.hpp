// A thread of low priority, for work that checks and copies many bytes: threads that compute tokens go before it. Its
// owner, the writer, hands it one action after the other.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

namespace atlas::memory {

// The owner hands over an action and waits for it. The owner itself keeps its priority, because it takes locks that the
// token loop takes, too: a thread of low priority might be held up while it has such a lock, and Linux does not let a
// thread raise its priority again. One owner.
class low_priority_thread {
  public:
    // Throws std::system_error where the system gives no more threads.
    low_priority_thread() : thread([this] { work(); }) {}
    ~low_priority_thread();

    low_priority_thread(const low_priority_thread &)             = delete;
    low_priority_thread & operator=(const low_priority_thread &) = delete;

    // Runs an action, which must not throw. Whenever it calls pause(), `meanwhile` runs on the owner's thread before
    // the action goes on.
    void run(const std::function<void()> & action, const std::function<void()> & meanwhile = {});
    void pause();

  private:
    std::mutex                    mutex; // guards all below
    std::condition_variable       changed;
    const std::function<void()> * action      = nullptr; // the action under way
    bool                          is_its_turn = false;   // this thread runs; else the owner does
    bool                          is_ending   = false;
    std::thread                   thread; // last: it uses the others

    void work();
};

} // namespace atlas::memory
