#include "atlas-conversations.hpp"

#include <algorithm>
#include <iterator>
#include <utility>

namespace atlas {

void conversation_queue::push(conversation && item) {
    const std::lock_guard<std::mutex> lock(mutex);
    bytes += item.messages.size();
    items.push_back(std::move(item));
    while (bytes > MAX_BYTES) {
        pop();
        n_dropped++;
    }
}

std::vector<conversation> conversation_queue::take(size_t n_max) {
    const std::lock_guard<std::mutex> lock(mutex);
    std::vector<conversation>         taken;
    size_t                            n_bytes = 0;
    while (!items.empty() && taken.size() < n_max && n_bytes < ENOUGH_BYTES) {
        n_bytes += items.front().messages.size();
        taken.push_back(pop());
    }
    return taken;
}

std::vector<conversation> conversation_queue::take_of(const std::string & session) {
    const std::lock_guard<std::mutex> lock(mutex);
    const auto                        is_other = [&](const conversation & item) { return item.session != session; };
    const auto                        begin    = std::find_if_not(items.begin(), items.end(), is_other);
    const auto                        first    = std::stable_partition(begin, items.end(), is_other);
    std::vector<conversation>         taken(std::make_move_iterator(first), std::make_move_iterator(items.end()));
    items.erase(first, items.end());
    for (const auto & item : taken) {
        bytes -= item.messages.size();
    }
    return taken;
}

uint64_t conversation_queue::dropped() const {
    const std::lock_guard<std::mutex> lock(mutex);
    return n_dropped;
}

conversation conversation_queue::pop() {
    conversation item = std::move(items.front());
    items.pop_front();
    bytes -= item.messages.size();
    return item;
}

} // namespace atlas
