// Counts the leases on slots: which completion requests go on at once, which wait for a slot, and which are refused.
// Touches its own lock only; HTTP threads call it, the token loop never does.
//
// Settings, metrics and messages say "context" for such a lease.
#pragma once

#include "atlas-config.hpp"
#include "atlas-error.hpp"
#include "atlas-ewma-cost.hpp"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <list>
#include <mutex>
#include <utility>

namespace atlas {

struct slot_pool_stats {
    int64_t  in_progress    = 0; // requests with an `atlas` object, those that wait included
    int64_t  waiting        = 0;
    int64_t  slots_in_use   = 0; // more than pool_size while standard requests wait in llama-server's queue
    int64_t  pool_size      = 0;
    uint64_t too_many       = 0; // refused with 429
    uint64_t exhausted      = 0; // refused with 503
    uint64_t degraded       = 0; // went on without waiting any longer
    uint64_t leases         = 0; // requests that got slots, standard requests included
    double   mean_service_s = 0; // recent mean of the time that leases are held; 0: none has ended
};

// The pool has pool_size slots. Standard requests, which have no `atlas` object, take a lease whether a slot is free or
// not: llama-server queues them as ever. Requests with one wait for free slots in the order of arrival, so that many
// small requests do not pass one that needs several slots.
//
// Any thread. The lock is held only for counting.
class slot_pool {
  public:
    using clock = std::chrono::steady_clock;

    // What a request has of the pool, until it is destroyed. It must not outlive the pool; one thread at a time.
    class lease {
      public:
        lease() = default;
        lease(lease && other) noexcept { std::swap(held, other.held); }
        ~lease();

        lease & operator=(lease other) noexcept {
            std::swap(held, other.held);
            return *this;
        }

        // False where the client left during the wait: then nothing is held.
        explicit operator bool() const { return held.owner != nullptr; }

        // Whether no slot became free in time, so that the request goes on as a standard one.
        bool degraded() const { return held.is_degraded; }

      private:
        friend class slot_pool;

        struct {
            slot_pool *       owner       = nullptr;
            int64_t           slots       = 0;
            bool              is_atlas    = false;
            bool              is_degraded = false;
            clock::time_point since;
        } held;
    };

    // now: the clock, for tests.
    explicit slot_pool(std::function<clock::time_point()> now = clock::now) : now(std::move(now)) {}

    // Sets how many slots there are. While there are 0 nobody waits: no model is ready yet.
    void set_pool_size(int64_t n_slots);

    // A standard request takes n_slots slots. Never waits, never fails.
    lease take(int64_t n_slots);

    // A request with an `atlas` object takes n_slots slots, at most the whole pool, and waits for them. Of config it
    // reads max_concurrent_atlas_requests and pool_timeout_ms. is_gone: whether the client left; asked every 50 ms or
    // so while the request waits, without the lock; may be empty, must not throw. Returns an empty lease when the
    // client left. When the time is over, a request without a session gets a degraded lease: it needs no slot that
    // keeps state for it. Throws atlas::error: 429 when too many are in progress, 503 when the time is over for a
    // request with a session, and after close().
    lease enter(int64_t n_slots, bool has_session, const AtlasServerConfig & config,
                const std::function<bool()> & is_gone);

    // Refuses all requests that wait, and all that come: the server is ending.
    void close();

    slot_pool_stats stats() const;

  private:
    struct waiter {
        lease &                 to;
        int64_t                 n_slots;
        bool                    is_granted = false;
        std::condition_variable changed;

        waiter(lease & to, int64_t n_slots) : to(to), n_slots(n_slots) {}
    };

    // All called with the lock held.
    int64_t clamped(int64_t n_slots) const { return std::min(n_slots, counts.pool_size); }
    void    hold(lease & to, int64_t n_slots);
    void    grant();
    error   exhausted(int64_t n_slots, double waited_ms) const;
    int     retry_after_s() const;

    const std::function<clock::time_point()> now;

    mutable std::mutex  mutex; // guards all below
    bool                closed = false;
    slot_pool_stats     counts;  // but for waiting and mean_service_s
    ewma_cost           service; // a unit is a lease
    std::list<waiter *> waiters; // in the order of arrival
};

} // namespace atlas
