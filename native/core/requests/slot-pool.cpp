#include "atlas-slot-pool.hpp"

#include <cmath>
#include <string>

namespace atlas {

namespace {

// How often a request that waits asks whether its client went away.
constexpr slot_pool::clock::duration POLL = std::chrono::milliseconds(50);

constexpr double MAX_RETRY_AFTER_S = 3600;

error shutting_down() { return error(503, "the server is shutting down"); }

} // namespace

slot_pool::lease::~lease() {
    if (held.owner == nullptr) {
        return;
    }
    auto &                            from = *held.owner;
    const std::lock_guard<std::mutex> lock(from.mutex);
    from.counts.in_progress -= held.is_atlas ? 1 : 0;
    if (held.slots > 0) {
        from.counts.slots_in_use -= held.slots;
        from.service.add(std::chrono::duration<double>(from.now() - held.since).count(), 1);
    }
    from.grant();
}

void slot_pool::set_pool_size(int64_t n_slots) {
    const std::lock_guard<std::mutex> lock(mutex);
    counts.pool_size = n_slots;
    grant();
}

void slot_pool::hold(lease & to, int64_t n_slots) {
    to.held.owner = this;
    to.held.slots = n_slots;
    to.held.since = now();
    counts.slots_in_use += n_slots;
    counts.leases++;
}

void slot_pool::grant() {
    while (!waiters.empty() && !closed) {
        waiter &      first = *waiters.front();
        const int64_t n     = clamped(first.n_slots);
        if (n > 0 && counts.slots_in_use + n > counts.pool_size) {
            return;
        }
        hold(first.to, n);
        first.is_granted = true;
        first.changed.notify_one();
        waiters.pop_front();
    }
}

int slot_pool::retry_after_s() const {
    const double slots   = std::max<double>(1, counts.pool_size);
    const double seconds = service.seconds_per_unit() * (waiters.size() + 1) / slots;
    return (int) std::ceil(std::clamp(seconds, 1.0, MAX_RETRY_AFTER_S));
}

error slot_pool::exhausted(int64_t n_slots, double waited_ms) const {
    const std::string all    = std::to_string(counts.pool_size);
    const std::string in_use = counts.slots_in_use >= counts.pool_size
                                   ? "all " + all + " are in use"
                                   : std::to_string(counts.slots_in_use) + " of " + all + " are in use, and " +
                                         std::to_string(clamped(n_slots)) + " are needed";
    return error(503,
                 "No available ATLAS contexts: " + in_use + " (waited " + std::to_string(std::llround(waited_ms)) +
                     " ms); try again later, or give the server more slots with --parallel, and more contexts with "
                     "--atlas-context-pool-size where that is set",
                 retry_after_s());
}

slot_pool::lease slot_pool::take(int64_t n_slots) {
    lease                             mine;
    const std::lock_guard<std::mutex> lock(mutex);
    hold(mine, n_slots);
    return mine;
}

slot_pool::lease slot_pool::enter(int64_t n_slots, bool has_session, const AtlasServerConfig & config,
                                  const std::function<bool()> & is_gone) {
    lease                        mine; // declared before the lock: destroying a lease takes the mutex again
    std::unique_lock<std::mutex> lock(mutex);
    if (closed) {
        throw shutting_down();
    }
    const int64_t most = config.max_concurrent_atlas_requests;
    if (counts.in_progress >= most) {
        counts.too_many++;
        throw error(429,
                    "Rate limit exceeded: " + std::to_string(most) +
                        " ATLAS requests are in progress, the most allowed by --atlas-max-concurrent or "
                        "ATLAS_MAX_CONCURRENT",
                    retry_after_s());
    }
    counts.in_progress++;
    mine.held.owner    = this;
    mine.held.is_atlas = true;

    waiter me(mine, n_slots);
    waiters.push_back(&me);
    grant();
    const auto deadline = now() + std::chrono::duration_cast<clock::duration>(
                                      std::chrono::duration<double, std::milli>(config.pool_timeout_ms));
    bool       gone     = false;
    while (!me.is_granted && !closed && !gone && now() < deadline) {
        me.changed.wait_for(lock, std::min(POLL, deadline - now()));
        if (!me.is_granted && is_gone) {
            lock.unlock();
            gone = is_gone();
            lock.lock();
        }
    }
    if (me.is_granted && !gone) {
        return mine;
    }
    waiters.remove(&me);
    if (gone) {
        return {};
    }
    if (closed) {
        throw shutting_down();
    }
    if (has_session) {
        counts.exhausted++;
        throw exhausted(n_slots, config.pool_timeout_ms);
    }
    grant(); // this request stood in the way of smaller ones behind it, for which the free slots may do
    hold(mine, clamped(n_slots));
    mine.held.is_degraded = true;
    counts.degraded++;
    return mine;
}

void slot_pool::close() {
    const std::lock_guard<std::mutex> lock(mutex);
    closed = true;
    for (waiter * each : waiters) {
        each->changed.notify_one();
    }
}

slot_pool_stats slot_pool::stats() const {
    const std::lock_guard<std::mutex> lock(mutex);
    slot_pool_stats                   now_counted = counts;
    now_counted.waiting                           = waiters.size();
    now_counted.mean_service_s                    = service.seconds_per_unit();
    return now_counted;
}

} // namespace atlas
