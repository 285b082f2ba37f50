#include "tier-books.hpp"

#include <algorithm>
#include <cstdlib>

namespace atlas::memory {

void tier_books::add(index_node & node, uint64_t bytes) {
    std::set<place> fresh = {place()};
    of(node).seat         = fresh.extract(fresh.begin());
    change(*node.parent, [&] { of(*node.parent).children++; });
    change(node, [&] {
        of(node).present = true;
        of(node).bytes   = bytes;
    });
    n_entries++;
    n_bytes += bytes;
}

void tier_books::remove(index_node & node) noexcept {
    n_entries--;
    n_bytes -= of(node).bytes;
    change(node, [&] {
        of(node).present   = false;
        of(node).is_orphan = false;
        of(node).bytes     = 0;
    });
    of(node).seat = {};
    change(*node.parent, [&] { of(*node.parent).children--; });
}

tier_books::place tier_books::place_of(index_node & node) const {
    const eviction_rank rank = of(node).is_orphan    ? eviction_rank::orphan
                               : node.is_pinned      ? eviction_rank::pinned
                               : node.is_live()      ? eviction_rank::live
                               : node.is_dominated() ? eviction_rank::dominated
                                                     : eviction_rank::normal;
    return {rank, of(node).priority, &node};
}

void tier_books::set_priority(index_node & node) {
    int64_t priority = node.last_use;
    if (node.strategy == cache_strategy::lfu && n_entries > 0) {
        const int64_t capacity = std::max<int64_t>(1, budget / std::max<uint64_t>(1, n_bytes / n_entries));
        const int64_t a_touch  = 4 * std::min<int64_t>(capacity, 1ll << 32);
        priority += a_touch * (std::min<int64_t>(node.touches, ATLAS_MAX_LFU_TOUCHES) - 2);
    }
    if (node.strategy == cache_strategy::adaptive) {
        priority += (int64_t) grace_of(node);
    }
    change(node, [&] { of(node).priority = priority; });
}

void tier_books::set_priority(index_node & node, int64_t priority) {
    constexpr int64_t MAX_GRACE = 1ll << 40; // a larger one judges this entry only, and not the class
    if (node.strategy == cache_strategy::adaptive && std::abs(priority - node.last_use) < MAX_GRACE) {
        double & grace = grace_of(node);
        grace += ((double) (priority - node.last_use) - grace) / 8;
    }
    change(node, [&] { of(node).priority = priority; });
}

double & tier_books::grace_of(const index_node & node) {
    const size_t touches = std::clamp<size_t>(node.touches, 1, TOUCH_CLASSES);
    return graces.at((size_t) node.kind).at(touches - 1);
}

index_node * tier_books::first(const std::function<bool(const index_node &)> & may) const {
    for (const auto & [rank, priority, node] : leaves) {
        if (may(*node)) {
            return node;
        }
    }
    return nullptr;
}

index_node * tier_books::last(std::optional<place> & cursor) const {
    const auto end = cursor ? leaves.lower_bound(*cursor) : leaves.end();
    if (end == leaves.begin()) {
        return nullptr;
    }
    cursor = *std::prev(end);
    return std::get<index_node *>(*cursor);
}

} // namespace atlas::memory
