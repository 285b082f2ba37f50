// What happened to entries since the last take(), for who runs elsewhere: a policy, and those that are told. In RAM only, no locks; the store's
// mutex guards it.
#pragma once

#include "entry-index.hpp"

#include <deque>
#include <vector>

namespace atlas::memory {

class event_log {
  public:
    // base: the clock's value at the start of the server.
    explicit event_log(int64_t base) : base(base) {}

    // They keep nothing before the first take(), so that the log costs nothing where there is no policy.
    void touched(const index_node & node, uint64_t size, double saving);
    void evicted(const index_node & node, int tier, int64_t priority, int64_t now);

    // That an entry's file is written, but its directory not yet synced, and that all are. They keep nothing unless the
    // last take() wanted it.
    void written(const index_node & node, uint64_t bytes, double seconds) noexcept;
    void durable() noexcept;

    std::vector<memory_event> take(size_t max_events, bool with_saved = false);

    // The entries of the touches that take() last returned, in order, with the time of each.
    struct touch {
        digest  key;
        int64_t now;
    };
    const std::vector<touch> & taken() const { return last_taken; }

    uint64_t dropped() const { return n_dropped; }

  private:
    static constexpr size_t MAX_WAITING = 65536;

    struct record {
        memory_event event;
        digest       key;
    };

    const int64_t      base;
    bool               is_wanted = false, is_saved_wanted = false;
    uint64_t           n_dropped = 0;
    std::deque<record> waiting;
    std::deque<record> unsynced; // SAVED events that are not true yet
    std::vector<touch> last_taken;

    void push(std::deque<record> & to, const index_node & node, const memory_event & event) noexcept;
};

} // namespace atlas::memory
