// One tier's budget, and the order in which it evicts entries. In RAM only, no locks; the store's mutex guards it, and
// the catalog alone calls it.
#pragma once

#include "entry-index.hpp"

#include <array>
#include <functional>
#include <optional>
#include <set>

namespace atlas::memory {

// Entries are evicted by rank, then by priority, the smallest first, and always leaf first. Only add() needs memory.
class tier_books {
  public:
    tier_books(tier_state index_node::* state, uint64_t budget) : budget(budget), state(state) {}

    const uint64_t budget; // in bytes

    uint64_t entries() const { return n_entries; }
    uint64_t bytes() const { return n_bytes; }

    // Where that fails, nothing has changed.
    void add(index_node & node, uint64_t bytes);
    void remove(index_node & node) noexcept;

    // Changes members of a node that the order depends on: `edit` does it.
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

    // Gives the node the priority that it has until a policy sets one. `lru` is the time of the last use. `adaptive`
    // adds the grace that the policy gave to entries of the same class lately: without it an entry that was just used
    // would be evicted before those to which the policy has given a grace. With `lfu` a touch outweighs a time in which
    // the whole tier could have been used four times.
    void set_priority(index_node & node);

    // Sets the priority that a policy gave.
    void set_priority(index_node & node, int64_t priority);

    // The entry to evict first among those for which `may` is true; nullptr when there is none. It looks at the others
    // one by one, so there must be few of them.
    index_node * first(const std::function<bool(const index_node &)> & may) const;

    using place = eviction_place;

    // The leaf that would be evicted last of those before the cursor, or of all without one; nullptr when there is
    // none. The cursor is set to its place.
    index_node * last(std::optional<place> & cursor) const;

  private:
    friend struct catalog_audit;

    tier_state index_node::* state;
    std::set<place>          leaves;
    uint64_t                 n_entries = 0;
    uint64_t                 n_bytes   = 0;

    // Grace by kind and by number of touches less one: a mean in which each new one counts an eighth.
    static constexpr size_t                          TOUCH_CLASSES = 4;
    std::array<std::array<double, TOUCH_CLASSES>, 3> graces        = {};

    double & grace_of(const index_node & node);

    tier_state & of(index_node & node) const { return node.*state; }
    bool         is_leaf(index_node & node) const { return of(node).present && of(node).children == 0; }
    place        place_of(index_node & node) const;
};

} // namespace atlas::memory
