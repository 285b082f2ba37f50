#include "shared-state.hpp"

#include "buffer-pool.hpp"

#include <algorithm>

namespace atlas::memory {

memory_stats shared_state::stats() const {
    memory_stats stats = entries.stats();
    stats.ready_bytes  = buffer_pool::instance().idle_bytes();
    auto retry         = disk_trouble::clock::time_point::max();
    for (const disk_trouble * one : {&writing, &indexing, &reading}) {
        if (!one->problem().empty()) {
            stats.disk_problem = stats.disk_problem.empty() ? one->problem() : stats.disk_problem;
            retry              = std::min(retry, one->retry_at());
        }
    }
    if (!stats.disk_problem.empty()) {
        const std::chrono::duration<double> rest = retry - disk_trouble::clock::now();
        stats.disk_retry_s                       = std::max(0.0, rest.count());
    }
    return stats;
}

void shared_state::stop_all() {
    {
        const std::lock_guard<std::mutex> held(mutex);
        is_stopping = true;
    }
    work.notify_all();
    share_work.notify_all();
    stop.notify_all();
    progress.notify_all();
}

uint64_t shared_state::unref(session taken, bool is_unwanted) {
    uint64_t                      bytes = 0;
    std::vector<memory_entry_ptr> released;
    in_steps([&] {
        bytes += entries.unref(taken, is_unwanted, AT_ONCE);
        const auto more = entries.take_released();
        try {
            released.insert(released.end(), more.begin(), more.end());
        } catch (const std::bad_alloc &) { // freed here, under the mutex
        }
        return !taken.chain.empty();
    });
    work.notify_one();
    share_work.notify_all();
    return bytes;
}

} // namespace atlas::memory
