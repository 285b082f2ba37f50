// Which completion requests go on at once, which wait for a context, and which are refused.
#pragma once

#include "atlas-config.hpp"
#include "atlas-error.hpp"
#include "atlas-unit-cost.hpp"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <list>
#include <mutex>
#include <utility>

namespace atlas {

struct admission_stats {
    int64_t  in_progress     = 0; // requests with an `atlas` object, those that wait included
    int64_t  waiting         = 0;
    int64_t  contexts_in_use = 0; // more than there are while standard requests wait for a slot
    int64_t  pool_size       = 0;
    uint64_t too_many        = 0; // refused with 429
    uint64_t exhausted       = 0; // refused with 503
    uint64_t degraded        = 0; // went on without waiting any longer
    uint64_t leases          = 0; // requests that got contexts, those of standard requests included
    double   mean_service_s  = 0; // recent mean of the time that leases are held; 0: none has ended
};

// A context is a lease on a slot; the pool has pool_size of them. Standard requests, which have no `atlas` object, take
// theirs whether there are any or not: llama-server queues them as ever. Those with one wait for theirs in the order in
// which they came, so that many small ones do not pass one that wants several.
//
// Any thread. Nothing is done under the lock that takes longer than to count. The token loop does not call it.
class admission {
  public:
    using clock = std::chrono::steady_clock;

    // What a request holds, until it is destroyed. Must not outlive the admission; used by one thread at a time.
    class lease {
      public:
        lease() = default;
        lease(lease && other) noexcept { std::swap(held, other.held); }
        ~lease();

        lease & operator=(lease other) noexcept {
            std::swap(held, other.held);
            return *this;
        }

        // False: nothing is held, as the client went away.
        explicit operator bool() const { return held.owner != nullptr; }

        // Whether the request goes on as a standard one, as no context became free in time.
        bool degraded() const { return held.is_degraded; }

      private:
        friend class admission;

        struct {
            admission *       owner       = nullptr;
            int64_t           contexts    = 0;
            bool              is_atlas    = false;
            bool              is_degraded = false;
            clock::time_point since;
        } held;
    };

    // now: the clock, for tests.
    explicit admission(std::function<clock::time_point()> now = clock::now) : now(std::move(now)) {}

    // How many contexts there are. Nobody waits for one while there are 0: no model is ready yet.
    void set_pool_size(int64_t n_contexts);

    // A standard request takes n_contexts. Never waits, never fails.
    lease take(int64_t n_contexts);

    // A request with an `atlas` object takes n_contexts, at most the whole pool, and waits for them. Which settings: of
    // config, those for requests in progress and for the time to wait. is_gone: whether the client went away; asked every
    // 50 ms or so while the request waits, without a lock held; may be empty, must not throw. Answers an empty lease when
    // it did, and a degraded one when the time is over and the request has no session, whose state a context is for.
    // Throws atlas::error: 429 when too many are in progress, 503 when the time is over and after close.
    lease enter(int64_t n_contexts, bool has_session, const AtlasServerConfig & config,
                const std::function<bool()> & is_gone);

    // The server is ending: refuses those that wait and those that come.
    void close();

    admission_stats stats() const;

  private:
    struct waiter {
        lease &                 to;
        int64_t                 n_contexts;
        bool                    is_granted = false;
        std::condition_variable changed;

        waiter(lease & to, int64_t n_contexts) : to(to), n_contexts(n_contexts) {}
    };

    // All called with the lock held.
    int64_t clamped(int64_t n_contexts) const { return std::min(n_contexts, counts.pool_size); }
    void    hold(lease & to, int64_t n_contexts);
    void    grant();
    error   exhausted(int64_t n_contexts, double waited_ms) const;
    int     retry_after_s() const;

    const std::function<clock::time_point()> now;

    mutable std::mutex  mutex; // guards all below
    bool                closed = false;
    admission_stats     counts;  // but for waiting and mean_service_s
    unit_cost           service; // a unit is a lease
    std::list<waiter *> waiters; // who came first is first
};

} // namespace atlas
