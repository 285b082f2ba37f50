// Locks on sessions, so that requests on one session run one after the other. Touches its own lock only; HTTP threads
// wait here, the token loop never calls it.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

namespace atlas {

// Gives the lock on a name to one request at a time, in the order of arrival. Any thread.
class session_locks {
  public:
    // The lock on a name. Its destruction, which must be before that of the session_locks, gives it to the next
    // request.
    class session_lock {
      public:
        session_lock(session_locks & owner, std::string name, uint64_t number)
            : owner(owner), name(std::move(name)), number(number) {}
        session_lock(const session_lock &)             = delete;
        session_lock & operator=(const session_lock &) = delete;
        ~session_lock() { owner.leave(name, number); }

      private:
        session_locks & owner;
        std::string     name;
        uint64_t        number;
    };

    // Waits for the lock on a name; is_gone is asked about every 50 ms whether the client left. Returns nullptr when it
    // did. Throws atlas::error: 503 after timeout_s seconds and after close(), 429 when max_waiting requests wait
    // already, for all names together.
    std::shared_ptr<session_lock> take(const std::string & name, double timeout_s, size_t max_waiting,
                                       const std::function<bool()> & is_gone);

    // Ends all waiting, from now on.
    void close() { is_closed = true; }

  private:
    std::atomic<bool>                           is_closed{false};
    std::mutex                                  mutex;
    std::condition_variable                     changed;
    std::map<std::string, std::deque<uint64_t>> queues; // the first of each has the lock
    uint64_t                                    last_number = 0;
    size_t                                      n_waiting   = 0;

    void leave(const std::string & name, uint64_t number);
};

} // namespace atlas
