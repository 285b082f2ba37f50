// The events of one streamed answer, numbered from 0, which several clients may read at once, each from where it likes. Touches
// its own lock only; who adds waits for no reader.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>

namespace atlas {

// Any thread.
class streamed_events {
  public:
    using clock = std::chrono::steady_clock;

    // The text of the next event, as it is sent.
    void add(std::string event);

    // No more follow.
    void end();

    // The number that the next event gets.
    int64_t next_number() const;

    // That of the oldest event that is kept.
    int64_t first_kept() const;

    // Of those that are kept.
    size_t bytes() const;

    // Lets the oldest go until that many bytes are free, or none is left; returns how many are.
    size_t drop(size_t bytes);

    enum class reading {
        more, // there were some, or none yet
        end, // all have been read
        lost, // the next one is not kept any more
    };

    // Appends the text of some events from number `next` on, which it moves on; waits for one until the deadline.
    reading read(int64_t & next, std::string & to, clock::time_point deadline) const;

  private:
    mutable std::mutex              mutex;
    mutable std::condition_variable changed;

    std::deque<std::shared_ptr<const std::string>> kept;
    int64_t                                        n_dropped = 0;
    size_t                                         n_bytes   = 0;
    bool                                           has_ended = false;
};

} // namespace atlas
