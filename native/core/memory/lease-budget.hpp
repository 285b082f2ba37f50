// What requests hold of conversations while they wait for a slot, as far as no layer counts it.
#pragma once

#include "atlas-memory.hpp"

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>

namespace atlas::memory {

// Any thread. Whoever asks first gets first, so that many small conversations do not pass a large one. Holds may outlive
// whoever made the budget. The token loop gives back, and waits for nothing longer than counting.
class lease_budget : public std::enable_shared_from_this<lease_budget> {
  public:
    using clock = std::chrono::steady_clock;

    // Bytes that count until it is destroyed. Not for two threads at a time.
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

        // Takes n_bytes of these out, or all where there are fewer.
        hold split(uint64_t n_bytes);
        // Adds those of another of the same budget.
        void merge(hold other);

      private:
        friend class lease_budget;

        std::shared_ptr<lease_budget> owner;
        uint64_t                      n_bytes     = 0;
        bool                          is_of_layer = false;

        void swap(hold & other) noexcept;
    };

    explicit lease_budget(uint64_t limit) : limit(limit) {}

    // Takes n_bytes, for which it waits as long as the patience lasts. An empty hold: it lasted no longer.
    // Who is alone gets any number, so that no conversation is too large.
    hold take(uint64_t n_bytes, const lookup_patience & patience);

    // Counts, whether there is room or not, what somebody holds and its place has no more: of_layer, what left layer 1. It
    // counts as layer 1's until they let go.
    hold keep(uint64_t n_bytes, bool of_layer);

    // Ends all waiting, from now on.
    void close();

    // What counts as layer 1's, in bytes.
    uint64_t of_layer() const;

    // Fills in what is counted here.
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
    bool                is_closed   = false;
    uint64_t            taken       = 0;
    uint64_t            layer_bytes = 0;
    uint64_t            n_waited    = 0;
    clock::time_point   moved       = {}; // when anybody last gave back
    std::list<waiter *> waiters; // who came first is first

    hold make(uint64_t n_bytes, bool is_of_layer);
    bool fits(uint64_t n_bytes) const { return taken == 0 || (taken <= limit && n_bytes <= limit - taken); }
    void grant();
};

// One entry that leases share. They are made of this by aliasing.
struct leased_entry {
    lease_budget::hold hold; // empty where a layer or the queue of writes counts it; goes after the entry
    memory_entry_ptr   entry;
};

} // namespace atlas::memory
