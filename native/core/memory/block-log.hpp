// Which entries came into a tier and left it since they were last told to who keeps an index elsewhere. In RAM only, no locks;
// the store's mutex guards it.
#pragma once

#include "atlas-block-changes.hpp"
#include "entry-index.hpp"

#include <deque>
#include <optional>

namespace atlas::memory {

class block_log {
  public:
    // They keep nothing before the first begin(), so that the log costs nothing where nobody asks. The token loop calls them.
    void stored(const index_node & node, int tier) noexcept { push(node, tier, true); }
    void removed(const index_node & node, int tier) noexcept { push(node, tier, false); }

    // Has all blocks below a root be told anew. What is below others is not told: another model may not use it.
    void begin(const digest & root);

    bool is_of(const digest & root) const { return wanted == root; }

    // Does a step of telling, which looks at about max_entries. Returns false once `to` has max_changes or more, or all was told.
    bool tell(block_changes & to, size_t max_changes, size_t max_entries, entry_index & index);

  private:
    static constexpr size_t MAX_WAITING = 16384;

    struct record {
        digest  key;
        uint8_t tier;
        bool    is_stored;
    };

    std::optional<digest> wanted; // the root
    std::deque<record>    waiting;
    bool                  is_anew    = false; // all is to be told, from the first of it
    bool                  is_walking = false; // so it is being told
    std::optional<digest> cursor; // the node that was told last on that walk; nothing: the root

    void   push(const index_node & node, int tier, bool is_stored) noexcept;
    size_t tell_one(const record & one, block_changes & to, const entry_index & index) const;
    void   walk(block_changes & to, size_t max_entries, entry_index & index);
};

} // namespace atlas::memory
