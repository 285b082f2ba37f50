#include "atlas-admission.hpp"

#include <cmath>
#include <string>

namespace atlas {

namespace {

// How often a request that waits asks whether its client went away.
constexpr admission::clock::duration POLL = std::chrono::milliseconds(50);

constexpr double MAX_RETRY_AFTER_S = 3600;

error shutting_down() { return error(503, "the server is shutting down"); }

} // namespace

admission::lease::~lease() {
    if (held.owner == nullptr) {
        return;
    }
    auto &                            from = *held.owner;
    const std::lock_guard<std::mutex> lock(from.mutex);
    from.counts.in_progress -= held.is_atlas ? 1 : 0;
    if (held.contexts > 0) {
        from.counts.contexts_in_use -= held.contexts;
        from.service.add(std::chrono::duration<double>(from.now() - held.since).count(), 1);
    }
    from.grant();
}

void admission::set_pool_size(int64_t n_contexts) {
    const std::lock_guard<std::mutex> lock(mutex);
    counts.pool_size = n_contexts;
    grant();
}

void admission::hold(lease & to, int64_t n_contexts) {
    to.held.owner    = this;
    to.held.contexts = n_contexts;
    to.held.since    = now();
    counts.contexts_in_use += n_contexts;
    counts.leases++;
}

void admission::grant() {
    while (!waiters.empty() && !closed) {
        waiter &      first = *waiters.front();
        const int64_t n     = clamped(first.n_contexts);
        if (n > 0 && counts.contexts_in_use + n > counts.pool_size) {
            return;
        }
        hold(first.to, n);
        first.is_granted = true;
        first.changed.notify_one();
        waiters.pop_front();
    }
}

int admission::retry_after_s() const {
    const double contexts = std::max<double>(1, counts.pool_size);
    const double seconds  = service.seconds_per_unit() * (waiters.size() + 1) / contexts;
    return (int) std::ceil(std::clamp(seconds, 1.0, MAX_RETRY_AFTER_S));
}

error admission::exhausted(int64_t n_contexts, double waited_ms) const {
    const std::string all    = std::to_string(counts.pool_size);
    const std::string in_use = counts.contexts_in_use >= counts.pool_size
                                   ? "all " + all + " are in use"
                                   : std::to_string(counts.contexts_in_use) + " of " + all + " are in use, and " +
                                         std::to_string(clamped(n_contexts)) + " are needed";
    return error(503,
                 "No available ATLAS contexts: " + in_use + " (waited " + std::to_string(std::llround(waited_ms)) +
                     " ms); try again later, or give the server more slots with --parallel, and more contexts with "
                     "--atlas-context-pool-size where that is set",
                 retry_after_s());
}

admission::lease admission::take(int64_t n_contexts) {
    lease                             mine;
    const std::lock_guard<std::mutex> lock(mutex);
    hold(mine, n_contexts);
    return mine;
}

admission::lease admission::enter(int64_t n_contexts, bool has_session, const AtlasServerConfig & config,
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

    waiter me(mine, n_contexts);
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
        throw exhausted(n_contexts, config.pool_timeout_ms);
    }
    grant(); // this request stood in the way of smaller ones behind it, for which the free slots may do
    hold(mine, clamped(n_contexts));
    mine.held.is_degraded = true;
    counts.degraded++;
    return mine;
}

void admission::close() {
    const std::lock_guard<std::mutex> lock(mutex);
    closed = true;
    for (waiter * each : waiters) {
        each->changed.notify_one();
    }
}

admission_stats admission::stats() const {
    const std::lock_guard<std::mutex> lock(mutex);
    admission_stats                   now_counted = counts;
    now_counted.waiting                           = waiters.size();
    now_counted.mean_service_s                    = service.seconds_per_unit();
    return now_counted;
}

} // namespace atlas
