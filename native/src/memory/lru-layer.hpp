// The order in which one layer gives up entries: orphans first, then the least recently used, leaf first.
#pragma once

#include "entry-index.hpp"

#include <functional>
#include <set>
#include <tuple>

namespace atlas::memory {

class lru_layer {
  public:
    explicit lru_layer(layer_state index_node::* state) : state(state) {}

    uint64_t entries() const { return n_entries; }
    uint64_t bytes() const { return n_bytes; }

    void add(index_node & node, uint64_t bytes);
    void remove(index_node & node);

    // Changes what the order depends on, node.last_use among it.
    void change(index_node & node, const std::function<void()> & edit);

    // The entry to give up first among those that `may` be given up; nullptr when there is none. Entries that may not
    // are looked at one by one, so there must be few of them.
    index_node * oldest(const std::function<bool(const index_node &)> & may) const;

  private:
    using place = std::tuple<bool, uint64_t, index_node *>; // not an orphan, last use

    layer_state index_node::* state;
    std::set<place>           leaves;
    uint64_t                  n_entries = 0;
    uint64_t                  n_bytes   = 0;

    layer_state & of(index_node & node) const { return node.*state; }
    bool          is_leaf(index_node & node) const { return of(node).present && of(node).children == 0; }
    place         place_of(index_node & node) const { return {!of(node).is_orphan, node.last_use, &node}; }
};

} // namespace atlas::memory
