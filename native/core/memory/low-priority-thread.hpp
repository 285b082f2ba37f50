// A thread of low priority, for work that checks and copies many bytes: whoever generates goes before it.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

namespace atlas::memory {

// Its owner hands actions to it and waits for them. So the owner, which takes locks that the token loop takes too, keeps
// its own priority: a thread that lowered it could not raise it again, and might be held up while it has a lock. One owner.
class low_priority_thread {
  public:
    // Throws std::system_error where the system gives no more threads.
    low_priority_thread() : thread([this] { work(); }) {}
    ~low_priority_thread();

    low_priority_thread(const low_priority_thread &)             = delete;
    low_priority_thread & operator=(const low_priority_thread &) = delete;

    // Runs an action, which must not throw. Whenever it calls pause(), `meanwhile` runs on the owner's thread before the
    // action goes on.
    void run(const std::function<void()> & action, const std::function<void()> & meanwhile = {});
    void pause();

  private:
    std::mutex                    mutex; // guards all below
    std::condition_variable       changed;
    const std::function<void()> * action      = nullptr; // that is under way
    bool                          is_its_turn = false;   // else it is the owner's
    bool                          is_ending   = false;
    std::thread                   thread; // last: it uses the others

    void work();
};

} // namespace atlas::memory
