// Requests on one session, one after the other.
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

// Hands out turns on names, in the order in which they were asked for. Any thread.
class session_turns {
  public:
    // A turn; the next one's begins when it is destroyed, which must be before the session_turns are.
    class turn {
      public:
        turn(session_turns & owner, std::string name, uint64_t number)
            : owner(owner), name(std::move(name)), number(number) {}
        turn(const turn &)             = delete;
        turn & operator=(const turn &) = delete;
        ~turn() { owner.leave(name, number); }

      private:
        session_turns & owner;
        std::string     name;
        uint64_t        number;
    };

    // Waits for the turn on a name; is_gone is asked about every 50 ms whether the client has left. Returns nullptr when
    // it has. Throws atlas::error: 503 after timeout_s seconds and after close(), 429 when max_waiting already wait, on
    // any name.
    std::shared_ptr<turn> take(const std::string & name, double timeout_s, size_t max_waiting,
                               const std::function<bool()> & is_gone);

    // Ends the waiting.
    void close() { is_closed = true; }

  private:
    std::atomic<bool>                           is_closed{false};
    std::mutex                                  mutex;
    std::condition_variable                     changed;
    std::map<std::string, std::deque<uint64_t>> queues; // the first of each has the turn
    uint64_t                                    last_number = 0;
    size_t                                      n_waiting   = 0;

    void leave(const std::string & name, uint64_t number);
};

} // namespace atlas
