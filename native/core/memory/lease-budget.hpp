// The bytes of entries that requests lease while they wait for a slot, as far as no tier counts them. Touches its own
// lock only; lookups take from it on HTTP threads, any thread gives back.
#pragma once

#include "atlas-memory.hpp"

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>

namespace atlas::memory {

// Any thread. Requests are served in the order of arrival, so that many small conversations do not pass a large one.
// Holds may outlive the store that made the budget. The token loop gives back here; the lock is held only for counting.
class lease_budget : public std::enable_shared_from_this<lease_budget> {
  public:
    using clock = std::chrono::steady_clock;

    // A number of bytes that count until the hold is destroyed. One thread at a time.
    class hold {
      public:
        hold() = default;
        hold(hold && other) noexcept { swap(other); }
        ~hold();

        hold & operator=(hold other) noexcept {
            swap(other);
            return *this;
        }

        uint64_t bytes() const { return n_bytes; }

        // Moves n_bytes of its bytes to a new hold, or all where there are fewer.
        hold split(uint64_t n_bytes);
        // Takes over the bytes of another hold of the same budget.
        void merge(hold other);

      private:
        friend class lease_budget;

        std::shared_ptr<lease_budget> owner;
        uint64_t                      n_bytes    = 0;
        bool                          is_of_tier = false;

        void swap(hold & other) noexcept;
    };

    explicit lease_budget(uint64_t limit) : limit(limit) {}

    // Takes n_bytes, and waits for room as long as the patience lasts; then the hold is empty. While nobody else has
    // any, any number is given, so that no conversation is too large.
    hold take(uint64_t n_bytes, const lookup_patience & patience);

    // Counts n_bytes of a leased entry that just left tier 1 (of_tier) or the write queue, whether there is room or
    // not. Those of tier 1 count in tier 1's budget until the lease ends.
    hold keep(uint64_t n_bytes, bool of_tier);

    // Ends all waiting, from now on.
    void close();

    // Bytes that count in tier 1's budget.
    uint64_t of_tier() const;

    // Adds its numbers to the stats.
    void add_to(memory_stats & stats) const;

  private:
    struct waiter {
        uint64_t                n_bytes;
        bool                    is_granted = false;
        std::condition_variable changed;
        explicit waiter(uint64_t n_bytes) : n_bytes(n_bytes) {}
    };

    const uint64_t      limit;
    mutable std::mutex  mutex; // guards all below
    bool                is_closed  = false;
    uint64_t            taken      = 0;
    uint64_t            tier_bytes = 0;
    uint64_t            n_waited   = 0;
    clock::time_point   moved      = {}; // when a hold last gave back
    std::list<waiter *> waiters; // in the order of arrival

    hold make(uint64_t n_bytes, bool is_of_tier);
    bool fits(uint64_t n_bytes) const { return taken == 0 || (taken <= limit && n_bytes <= limit - taken); }
    void grant();
};

// One entry, which all its leases share: a lease is a shared_ptr to the entry that owns this.
struct leased_entry {
    lease_budget::hold hold; // empty while tier 1 or the write queue counts the entry; destroyed after it
    memory_entry_ptr   entry;
};

} // namespace atlas::memory
