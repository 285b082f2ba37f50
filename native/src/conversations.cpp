#include "atlas-conversations.hpp"

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
    while (!items.empty() && taken.size() < n_max) {
        taken.push_back(pop());
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
