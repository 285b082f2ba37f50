// Whether layer 2 works, and when it is tried again.
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

// Trouble with one kind of work: it is left alone for longer and longer, until it succeeds. Not thread-safe.
class disk_trouble {
  public:
    using clock = std::chrono::steady_clock;

    // It failed. What fails while it is left alone, being in haste, does not make that longer.
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

    const std::string & problem() const { return text; } // empty: none
    clock::time_point   retry_at() const { return until; }
    bool                is_waiting() const { return clock::now() < until; }

  private:
    std::string       text;
    backoff           delays;
    clock::time_point until = {};
};

} // namespace atlas::memory
