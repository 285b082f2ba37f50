#include "lru-layer.hpp"

namespace atlas::memory {

void lru_layer::change(index_node & node, const std::function<void()> & edit) {
    if (is_leaf(node)) {
        leaves.erase(place_of(node));
    }
    edit();
    if (is_leaf(node)) {
        leaves.insert(place_of(node));
    }
}

void lru_layer::add(index_node & node, uint64_t bytes) {
    change(*node.parent, [&] { of(*node.parent).children++; });
    change(node, [&] {
        of(node).present = true;
        of(node).bytes   = bytes;
    });
    n_entries++;
    n_bytes += bytes;
}

void lru_layer::remove(index_node & node) {
    n_entries--;
    n_bytes -= of(node).bytes;
    change(node, [&] {
        of(node).present   = false;
        of(node).is_orphan = false;
        of(node).bytes     = 0;
    });
    change(*node.parent, [&] { of(*node.parent).children--; });
}

index_node * lru_layer::oldest(const std::function<bool(const index_node &)> & may) const {
    for (const auto & [is_reachable, last_use, node] : leaves) {
        if (may(*node)) {
            return node;
        }
    }
    return nullptr;
}

} // namespace atlas::memory
