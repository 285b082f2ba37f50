// Whether tier 2 works, and when it is tried again. Touches nothing; the store's threads call it with the store's
// mutex.
#pragma once

#include "backoff.hpp"

#include <exception>
#include <string>
#include <utility>

namespace atlas::memory {

inline std::string reason_of(const std::exception & error) noexcept {
    try {
        return error.what();
    } catch (const std::bad_alloc &) {
        return "no memory"; // short enough to need none
    }
}

// Trouble with one kind of work. While it lasts the work is tried after longer and longer pauses. Not thread-safe.
class disk_trouble {
  public:
    using clock = std::chrono::steady_clock;

    // The work failed. A hasty try that fails during a pause, as for flush(), does not lengthen it.
    void begin(std::string why) {
        text = std::move(why);
        if (!is_waiting()) {
            until = clock::now() + delays.next();
        }
    }

    void end() {
        text.clear();
        delays.reset();
        until = {};
    }

    // The next try need not wait.
    void end_pause() { until = {}; }

    const std::string & problem() const { return text; } // empty: none
    clock::time_point   retry_at() const { return until; }
    bool                is_waiting() const { return clock::now() < until; }

  private:
    std::string       text;
    backoff           delays;
    clock::time_point until = {};
};

} // namespace atlas::memory
