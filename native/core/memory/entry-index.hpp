// Which entries there are, and how they continue one another: a prefix tree with a block as a step. In RAM only, no
// budgets, no locks; the store's mutex guards it, and the catalog alone calls it.
#pragma once

#include "atlas-memory.hpp"
#include "digest.hpp"

#include <algorithm>
#include <array>
#include <functional>
#include <list>
#include <memory>
#include <set>
#include <tuple>
#include <unordered_map>

namespace atlas::memory {

struct index_node;
struct leased_entry;

// What is evicted first when a tier needs room.
enum class eviction_rank : uint8_t {
    orphan,    // no lookup can reach it any more
    dominated, // a checkpoint on the way to a later one, and never used again
    normal,
    live,   // of a session
    pinned, // of a session that a user pinned
};

// Where a leaf stands in the order of eviction. The node is only compared by its address, so it may be gone.
using eviction_place = std::tuple<eviction_rank, int64_t, index_node *>;

// How a tier has an entry; only the class `tier_books` changes it.
struct tier_state {
    std::set<eviction_place>::node_type seat; // its node of the tier's order, kept here while the entry is no leaf

    uint64_t bytes     = 0;
    int64_t  priority  = 0;     // on the scale of last_use; the smallest goes first
    uint32_t children  = 0;     // in the same tier
    bool     present   = false; // in the tier
    bool     is_orphan = false; // cannot be reached from its root in the tier
};

// A file of tier 2. The record is made with the file's entry, so that removing the file needs no memory.
struct stored_file {
    digest   key;
    uint64_t bytes;
    uint64_t place = 0; // of its removal among the jobs of the write queue, once the removal has failed
};

// An entry that waits for the disk. It keeps the state in RAM meanwhile.
struct pending_write {
    memory_entry_ptr    entry;
    uint64_t            sequence; // in the order of put()
    uint64_t            place;    // of its job in the queue
    std::vector<digest> replaces; // removed from the disk once this one is durable
    bool                is_being_written = false;
};

struct by_tokens {
    using is_transparent = void;
    struct place {
        bool            fits;
        entry_kind      kind;
        const int32_t * tokens;
        size_t          n_tokens;
    };
    static place of(const index_node * node);

    bool operator()(const place & a, const place & b) const;
    bool operator()(const index_node * a, const index_node * b) const { return (*this)(of(a), of(b)); }
    bool operator()(const index_node * a, const place & b) const { return (*this)(of(a), b); }
    bool operator()(const place & a, const index_node * b) const { return (*this)(a, of(b)); }
};

// A key. A node without a parent is there only as the parent of others: a root, or an entry that is not stored.
struct index_node {
    const digest * key    = nullptr;
    index_node *   parent = nullptr;
    entry_kind     kind   = entry_kind::block;
    memory_tokens  tokens;
    uint64_t       position = 0; // how many tokens come before; 0 also where the parent was not stored
    bool           fits     = false; // our block size allows its length; other servers' entries are never found

    std::shared_ptr<const digest>
        root; // from which its chain begins, as those before it have it; null: not looked up yet

    std::set<index_node *, by_tokens> children;

    int64_t        last_use      = 0; // on the catalog's clock
    uint32_t       touches       = 0;
    uint32_t       n_sessions    = 0;     // sessions that it belongs to
    uint32_t       n_begun       = 0;     // its part of the count of sessions that have their beginning in RAM
    bool           wants_pin     = false; // a user pinned one of its sessions
    bool           is_pinned     = false; // and there was room for that
    uint64_t       pin_bytes     = 0;     // its part of the bytes that are pinned, or that are beyond the limit
    cache_strategy strategy      = cache_strategy::lru; // of the request that last touched it
    bool           is_on_the_way = false;          // a later checkpoint was kept on the same conversation

    bool is_preloaded = false;          // in RAM since the preload, and not used since

    int held_for = 1;             // in RAM, and to be kept in tiers up to this one once it was adopted
    // Of tiers from 3: in which share queues it waits, a bit for each; and during which life of each that tier had it
    // when it was last asked, 0: none.
    uint8_t                             share_waits = 0;
    std::array<uint8_t, N_LINKED_TIERS> shared_in   = {};

    tier_state                     ram, disk;
    std::list<stored_file>         file; // one where the entry is on disk
    memory_entry_ptr               in_ram;
    std::unique_ptr<pending_write> pending;
    std::weak_ptr<leased_entry>    lease;
    bool                           is_superseded = false; // on disk only until the entry that replaces it is durable
    bool                           is_forgotten  = false; // deleted while it was being written: then to be removed
    bool                           is_draft      = false; // its sessions are those of drafts

    bool is_live() const { return n_sessions > 0; }
    bool is_stored() const { return in_ram || pending || disk.present; }
    bool is_dominated() const { return is_on_the_way && touches <= 1; }
};

class entry_index {
  public:
    explicit entry_index(size_t block_tokens) : block_tokens(block_tokens) {}
    // RAM that the nodes take, in bytes: about 660 each, and their tokens.
    uint64_t bytes() const { return n_bytes; }

    index_node *       find(const digest & key);
    const index_node * find(const digest & key) const;

    // The node of an entry, made where it is missing. Where that fails, nothing has changed.
    index_node & add(const digest & key, const digest & parent, entry_kind kind, const memory_tokens & tokens);

    // Removes a node whose entry is stored nowhere, and the nodes that were there only to lead to it. Does nothing
    // while the entry is stored or has children that are.
    void release(index_node & node) noexcept;

    // Calls visit(node) for a node and, wherever that returns true, for its children. Needs no memory; visit() may
    // change no links.
    template <typename F> static void walk(index_node & top, F visit) {
        for (index_node * node = &top; node;) {
            const bool goes_down = visit(*node) && !node->children.empty();
            node                 = goes_down ? *node->children.begin() : next_beside(node, top);
        }
    }

    // The node that comes behind this one on such a walk through all that is below `top`; null at its end.
    static index_node * next(index_node & node, const index_node & top) {
        return node.children.empty() ? next_beside(&node, top) : *node.children.begin();
    }

    // The block of exactly these tokens.
    index_node * block(const index_node & parent, const int32_t * tokens, size_t n_tokens) const;

    struct nearest_match {
        index_node * node   = nullptr;
        size_t       common = 0; // tokens, from 1
    };
    // The block or tail that has the most leading tokens in common with these; null where none has any.
    nearest_match nearest(const index_node & parent, const int32_t * tokens, size_t n_tokens) const;

    // The longest checkpoint whose tokens are all at the beginning of these, among those for which `may` is true.
    index_node * checkpoint(const index_node & parent, const int32_t * tokens, size_t n_tokens,
                            const std::function<bool(const index_node &)> & may) const;

    // Calls visit(node) for the children of a kind that begin with these tokens, until it returns false. visit() may
    // change no links.
    template <typename F>
    void visit_led_by(const index_node & parent, entry_kind kind, const int32_t * tokens, size_t n_tokens,
                      F visit) const {
        auto it = parent.children.lower_bound(by_tokens::place{true, kind, tokens, n_tokens});
        for (; it != parent.children.end(); ++it) {
            const memory_tokens & own = (*it)->tokens;
            if (!(*it)->fits || (*it)->kind != kind || own.size() < n_tokens ||
                !std::equal(tokens, tokens + n_tokens, own.begin()) || !visit(**it)) {
                return;
            }
        }
    }

  private:
    friend struct catalog_audit;

    const size_t                                        block_tokens;
    std::unordered_map<digest, index_node, digest_hash> nodes;

    uint64_t n_bytes = 0;

    index_node &        at(const digest & key);
    static index_node * next_beside(index_node * node, const index_node & top);
};

} // namespace atlas::memory
