#include "lease-budget.hpp"

#include <algorithm>
#include <utility>

namespace atlas::memory {

using clock = lease_budget::clock;

constexpr clock::duration POLL = std::chrono::milliseconds(50); // how often a waiter asks whether its client left

lease_budget::hold::~hold() {
    if (owner) {
        const std::lock_guard<std::mutex> held(owner->mutex);
        (is_of_tier ? owner->tier_bytes : owner->taken) -= n_bytes;
        owner->moved = clock::now();
        owner->grant();
    }
}

void lease_budget::hold::swap(hold & other) noexcept {
    std::swap(owner, other.owner);
    std::swap(n_bytes, other.n_bytes);
    std::swap(is_of_tier, other.is_of_tier);
}

lease_budget::hold lease_budget::hold::split(uint64_t n) {
    hold part;
    part.owner      = owner;
    part.is_of_tier = is_of_tier;
    part.n_bytes    = std::min(n, n_bytes);
    n_bytes -= part.n_bytes;
    return part;
}

void lease_budget::hold::merge(hold other) {
    if (!owner) {
        swap(other);
        return;
    }
    n_bytes += std::exchange(other.n_bytes, 0);
}

lease_budget::hold lease_budget::make(uint64_t n_bytes, bool is_of_tier) {
    hold made;
    made.owner      = shared_from_this();
    made.n_bytes    = n_bytes;
    made.is_of_tier = is_of_tier;
    (is_of_tier ? tier_bytes : taken) += n_bytes;
    return made;
}

void lease_budget::grant() {
    while (!waiters.empty() && fits(waiters.front()->n_bytes)) {
        waiter & first   = *waiters.front();
        first.is_granted = true;
        taken += first.n_bytes; // reserved for it; take() gives it back to make(), which counts it again
        first.changed.notify_one();
        waiters.pop_front();
    }
}

lease_budget::hold lease_budget::take(uint64_t n_bytes, const lookup_patience & patience) {
    std::unique_lock<std::mutex> held(mutex);
    if (waiters.empty() && fits(n_bytes)) {
        return make(n_bytes, false);
    }
    const auto timeout = std::chrono::duration_cast<clock::duration>(std::chrono::duration<double>(patience.timeout_s));
    const auto began   = clock::now();
    const auto is_late = [&] { return clock::now() >= std::max(began, moved) + timeout; };
    bool       is_gone = patience.timeout_s <= 0;
    waiter     me(n_bytes);
    if (!is_gone) {
        n_waited++;
        waiters.push_back(&me);
    }
    while (!me.is_granted && !is_closed && !is_gone && !is_late()) {
        me.changed.wait_for(held, std::min(POLL, timeout));
        if (!me.is_granted && patience.is_gone) {
            held.unlock();
            is_gone = patience.is_gone();
            held.lock();
        }
    }
    if (me.is_granted) {
        taken -= n_bytes;
        return make(n_bytes, false);
    }
    waiters.remove(&me);
    grant(); // this one stood in the way of smaller requests behind it, for which there may be room
    return {};
}

lease_budget::hold lease_budget::keep(uint64_t n_bytes, bool of_tier) {
    const std::lock_guard<std::mutex> held(mutex);
    return make(n_bytes, of_tier);
}

void lease_budget::close() {
    const std::lock_guard<std::mutex> held(mutex);
    is_closed = true;
    for (waiter * each : waiters) {
        each->changed.notify_one();
    }
}

uint64_t lease_budget::of_tier() const {
    const std::lock_guard<std::mutex> held(mutex);
    return tier_bytes;
}

void lease_budget::add_to(memory_stats & stats) const {
    const std::lock_guard<std::mutex> held(mutex);
    stats.ram_bytes += tier_bytes;
    stats.held_bytes      = taken;
    stats.held_limit      = limit;
    stats.lookups_waiting = waiters.size();
    stats.lookups_waited  = n_waited;
}

} // namespace atlas::memory
