#include "atlas-streamed-events.hpp"

#include <utility>

namespace atlas {

// What one reader is given at once.
static constexpr size_t PIECE_BYTES = 64 * 1024;

void streamed_events::add(std::string event) {
    auto                              text = std::make_shared<const std::string>(std::move(event));
    const std::lock_guard<std::mutex> lock(mutex);
    n_bytes += text->size();
    kept.push_back(std::move(text));
    changed.notify_all();
}

void streamed_events::end() {
    const std::lock_guard<std::mutex> lock(mutex);
    has_ended = true;
    changed.notify_all();
}

int64_t streamed_events::next_number() const {
    const std::lock_guard<std::mutex> lock(mutex);
    return n_dropped + (int64_t) kept.size();
}

int64_t streamed_events::first_kept() const {
    const std::lock_guard<std::mutex> lock(mutex);
    return n_dropped;
}

size_t streamed_events::bytes() const {
    const std::lock_guard<std::mutex> lock(mutex);
    return n_bytes;
}

size_t streamed_events::drop(size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex);
    size_t                            n_freed = 0;
    while (n_freed < bytes && !kept.empty()) {
        n_freed += kept.front()->size();
        kept.pop_front();
        n_dropped++;
    }
    n_bytes -= n_freed;
    changed.notify_all();
    return n_freed;
}

streamed_events::reading streamed_events::read(int64_t & next, std::string & to, clock::time_point deadline) const {
    std::unique_lock<std::mutex> lock(mutex);
    const auto                   there = [&] { return n_dropped + (int64_t) kept.size(); };
    changed.wait_until(lock, deadline, [&] { return next < there() || has_ended; });
    if (next < n_dropped) {
        return reading::lost;
    }
    while (next < there() && to.size() < PIECE_BYTES) {
        to += *kept[next - n_dropped];
        next++;
    }
    return next >= there() && has_ended ? reading::end : reading::more;
}

} // namespace atlas
