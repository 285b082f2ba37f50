// One layer's budget, and the order in which it gives up entries.
#pragma once

#include "entry-index.hpp"

#include <array>
#include <functional>
#include <optional>
#include <set>

namespace atlas::memory {

// Entries go by rank, then by priority, the smallest first; always leaf first. Only add() needs memory.
class layer {
  public:
    layer(layer_state index_node::* state, uint64_t budget) : budget(budget), state(state) {}

    const uint64_t budget; // in bytes

    uint64_t entries() const { return n_entries; }
    uint64_t bytes() const { return n_bytes; }

    // Where that fails, nothing has changed.
    void add(index_node & node, uint64_t bytes);
    void remove(index_node & node) noexcept;

    // Changes what the order depends on.
    template <typename F> void change(index_node & node, F edit) {
        if (is_leaf(node)) {
            of(node).seat = leaves.extract(place_of(node));
        }
        edit();
        if (is_leaf(node)) {
            of(node).seat.value() = place_of(node);
            leaves.insert(std::move(of(node).seat));
        }
    }

    // Gives the node the priority that its strategy promises, as far as no policy has to be asked: `lru` and `adaptive`
    // go by the last use, `adaptive` with the grace that the policy gave to such entries of late, so that what was just used
    // does not go before what has its grace already; with `lfu` every touch outweighs a time in which the whole layer could have been used four times.
    void set_priority(index_node & node);

    // As a policy decided.
    void set_priority(index_node & node, int64_t priority);

    // The entry to give up first among those that `may` be given up; nullptr when there is none. Entries that may not
    // are looked at one by one, so there must be few of them.
    index_node * first(const std::function<bool(const index_node &)> & may) const;

    using place = eviction_place;

    // The leaf that would be given up last of those before the cursor, which is set to its place; without a cursor, of
    // all. nullptr when there is none.
    index_node * last(std::optional<place> & cursor) const;

  private:
    friend struct catalog_audit;

    layer_state index_node::* state;
    std::set<place>           leaves;
    uint64_t                  n_entries = 0;
    uint64_t                  n_bytes   = 0;

    // Grace by kind and number of touches, less one: a mean in which each counts an eighth.
    static constexpr size_t                          TOUCH_CLASSES = 4;
    std::array<std::array<double, TOUCH_CLASSES>, 3> graces        = {};

    double & grace_of(const index_node & node);

    layer_state & of(index_node & node) const { return node.*state; }
    bool          is_leaf(index_node & node) const { return of(node).present && of(node).children == 0; }
    place         place_of(index_node & node) const;
};

} // namespace atlas::memory
