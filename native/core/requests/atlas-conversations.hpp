// Conversations that clients sent whole, on their way from HTTP threads to the Python thread that writes them to the
// database. Touches its own lock only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <vector>

namespace atlas {

struct conversation {
    std::string session;  // as qualified by its tenant
    std::string messages; // JSON array
};

// A bounded queue: where there is no room the oldest is dropped, and counted. Any thread; push() never waits for a
// taker.
class conversation_queue {
  public:
    void push(conversation && item);

    // Takes the oldest: n_max at most, and no further ones once they have 4 MiB together.
    std::vector<conversation> take(size_t n_max);

    // Takes all of one session, the oldest first.
    std::vector<conversation> take_of(const std::string & session);

    uint64_t dropped() const;

  private:
    static constexpr size_t MAX_BYTES    = 64 * 1024 * 1024;
    static constexpr size_t ENOUGH_BYTES = 4 * 1024 * 1024;

    mutable std::mutex       mutex;
    std::deque<conversation> items;
    size_t                   bytes     = 0;
    uint64_t                 n_dropped = 0;

    conversation pop();
};

} // namespace atlas
