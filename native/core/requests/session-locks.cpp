#include "atlas-session-locks.hpp"

#include "atlas-error.hpp"

#include <algorithm>
#include <chrono>

namespace atlas {

static const std::chrono::milliseconds POLL(50);

std::shared_ptr<session_locks::session_lock> session_locks::take(const std::string & name, double timeout_s,
                                                                 size_t                        max_waiting,
                                                                 const std::function<bool()> & is_gone) {
    using clock = std::chrono::steady_clock;
    const auto deadline =
        clock::now() + std::chrono::duration_cast<clock::duration>(std::chrono::duration<double>(timeout_s));
    std::unique_lock<std::mutex> lock(mutex);
    if (queues.count(name) > 0 && n_waiting >= max_waiting) {
        throw error(429,
                    "Rate limit exceeded: " + std::to_string(n_waiting) +
                        " requests wait for earlier ones on their sessions",
                    1);
    }
    const uint64_t number = ++last_number;
    queues[name].push_back(number);

    // made before the wait, so that its destructor takes the number out of the queue whatever happens; it takes the
    // mutex
    lock.unlock();
    auto mine = std::make_shared<session_lock>(*this, name, number);
    lock.lock();

    n_waiting++;
    bool is_timeout = false;
    bool has_left   = false;
    while (queues[name].front() != number && !is_timeout && !has_left && !is_closed) {
        changed.wait_for(lock, POLL);
        lock.unlock();
        has_left = is_gone();
        lock.lock();
        is_timeout = clock::now() > deadline;
    }
    n_waiting--;
    const bool has_lock = queues[name].front() == number;
    lock.unlock();
    if (has_lock && !has_left) {
        return mine;
    }
    if (has_left) {
        return nullptr;
    }
    if (is_closed) {
        throw error(503, "the server is shutting down");
    }
    throw error(503,
                "The session is still busy with an earlier request after " +
                    std::to_string((int64_t) (timeout_s * 1000)) +
                    " ms: wait for its answer, or raise --atlas-pool-timeout-ms or ATLAS_POOL_TIMEOUT_MS",
                1);
}

void session_locks::leave(const std::string & name, uint64_t number) {
    const std::lock_guard<std::mutex> lock(mutex);
    auto                              queue = queues.find(name);
    auto &                            order = queue->second;
    order.erase(std::find(order.begin(), order.end(), number));
    if (order.empty()) {
        queues.erase(queue);
    }
    changed.notify_all();
}

} // namespace atlas
