// The part of the catalog that finds the entries of a prompt, and counts them as used.
#include "catalog.hpp"

#include <algorithm>

namespace atlas::memory {

uint64_t match_plan::bytes_to_read() const {
    uint64_t bytes = checkpoint ? checkpoint->bytes : 0;
    for (const match_piece & piece : blocks) {
        bytes += piece.bytes;
    }
    return bytes;
}

static memory_entry_ptr pointer_to(const std::shared_ptr<leased_entry> & leased) {
    return {leased, leased->entry.get()};
}

// A lease is counted apart from what the tiers and the writer hold, so that the node can tell whether there is one.
memory_entry_ptr catalog::lease(index_node & node) const {
    if (const auto leased = node.lease.lock()) {
        return pointer_to(leased);
    }
    if (!node.in_ram && !node.pending) {
        return nullptr;
    }
    const auto made = std::make_shared<leased_entry>();
    made->entry     = node.in_ram ? node.in_ram : node.pending->entry;
    node.lease      = made;
    return pointer_to(made);
}

// An entry that just left tier 1 or the write queue may still be leased: then its bytes count in the budget of leases.
void catalog::account_lease(index_node & node, bool was_in_ram) noexcept {
    if (node.in_ram || node.pending) {
        return;
    }
    if (const auto leased = node.lease.lock()) {
        if (leased->hold.bytes() == 0) {
            leased->hold = leases->keep(memory_bytes(*leased->entry), was_in_ram);
        }
        release_later(pointer_to(leased)); // the lease may end right now, and must not free the entry under the lock
    }
}

match_piece catalog::piece_of(index_node & node, size_t begin) const {
    match_piece piece = {*node.key, *node.parent->key, node.kind, {}, begin, lease(node), 0};
    if (!piece.entry) {
        piece.tokens = node.tokens; // to compare with the file's
        piece.bytes  = node.disk.bytes;
    }
    return piece;
}

bool prefix_search::may_use(const index_node & node) const {
    return !node.is_forgotten && (max_tier >= 2 || node.in_ram || node.pending);
}

// The node of the last of the first n_blocks, or the root; nullptr where it is gone.
index_node * catalog::node_behind(const prefix_search & search, size_t n_blocks) {
    return index.find(n_blocks == 0 ? search.root : search.plan.blocks[n_blocks - 1].key);
}

bool catalog::choose(prefix_search & search, size_t max_entries) {
    for (; max_entries > 0 && !search.is_walked; max_entries--) {
        walk(search);
    }
    for (; max_entries > 0 && search.is_walked && search.n_behind; max_entries--) {
        look_for_checkpoint(search);
    }
    return !search.is_walked || search.n_behind;
}

// Whether any conversation has tokens behind the node's.
static bool goes_on(const index_node & node) {
    const auto first = node.children.lower_bound(by_tokens::place{true, entry_kind::block, nullptr, 0});
    return first != node.children.end() && (*first)->kind != entry_kind::checkpoint;
}

// Extends the prefix by one block; at the last, by what it has in common with the nearest block or tail.
void catalog::walk(prefix_search & search) {
    match_plan & plan  = search.plan;
    const size_t begin = plan.n_tokens;
    const size_t n     = search.n_tokens - begin;
    index_node * last  = node_behind(search, plan.blocks.size());
    if (last && n >= options.block_tokens) {
        index_node * next = index.block(*last, search.tokens + begin, options.block_tokens);
        if (next && search.may_use(*next)) {
            plan.blocks.push_back(piece_of(*next, begin));
            plan.n_tokens += options.block_tokens;
            return;
        }
    }
    search.is_walked = true;
    if (search.need_checkpoint) {
        search.n_behind = plan.blocks.size();
    }
    const auto end = last ? index.nearest(*last, search.tokens + begin, n) : entry_index::nearest_match();
    if (end.node && search.may_use(*end.node)) {
        plan.blocks.push_back(piece_of(*end.node, begin));
        plan.n_tokens += end.common;
    }
    plan.n_known    = plan.n_tokens;
    plan.has_parted = end.node ? end.common < std::min(n, end.node->tokens.size()) : last && n > 0 && goes_on(*last);
    if (search.need_checkpoint && search.rewind > 0 && plan.n_tokens > 0 && last) {
        look_beyond(search, *last, begin);
    }
}

// Looks for a checkpoint of another conversation that has the whole prefix and goes on from its end: rolled back by a
// few tokens, it serves. There may be thousands of such conversations, so it tries some.
void catalog::look_beyond(prefix_search & search, const index_node & last, size_t begin) {
    struct place {
        const index_node * parent;
        size_t             begin;
    };
    constexpr size_t   MAX_TRIED = 64;
    match_plan &       plan      = search.plan;
    size_t             n_tried   = 0;
    std::vector<place> places    = {{&last, begin}};
    for (size_t i = 0; i < places.size(); i++) {
        const auto      at     = places[i];
        const size_t    common = at.begin < plan.n_tokens ? plan.n_tokens - at.begin : 0;
        const int32_t * tokens = search.tokens + at.begin;
        for (const entry_kind kind : {entry_kind::checkpoint, entry_kind::block}) {
            index.visit_led_by(*at.parent, kind, tokens, common, [&](index_node & node) {
                const size_t end     = at.begin + node.tokens.size();
                const bool   is_near = end <= plan.n_tokens + search.rewind;
                if (is_near && kind == entry_kind::block) {
                    places.push_back({&node, end});
                } else if (is_near && search.may_use(node)) {
                    plan.checkpoint = piece_of(node, at.begin);
                    plan.n_beyond   = end - plan.n_tokens;
                    search.n_behind.reset();
                }
                return !plan.checkpoint && ++n_tried < MAX_TRIED;
            });
            if (plan.checkpoint || n_tried >= MAX_TRIED) {
                return;
            }
        }
    }
}

// Looks for a checkpoint among the children of one block; the next call takes the block before it, down to the root.
void catalog::look_for_checkpoint(prefix_search & search) {
    match_plan & plan  = search.plan;
    const size_t i     = *search.n_behind;
    const size_t begin = i * options.block_tokens;
    const size_t n     = std::min(plan.n_tokens - begin, options.block_tokens);
    index_node * last  = node_behind(search, i);
    index_node * found = last ? index.checkpoint(*last, search.tokens + begin, n,
                                                 [&](const index_node & node) { return search.may_use(node); })
                              : nullptr;
    if (found && begin + found->tokens.size() > 0) {
        plan.checkpoint = piece_of(*found, begin);
        plan.n_tokens   = begin + found->tokens.size();
        search.n_behind.reset();
    } else if (i == 0) {
        plan.n_tokens = 0;
        search.n_behind.reset();
    } else {
        search.n_behind = i - 1;
    }
}

// Keeps in tier 1 what was read; where there is no room, in the budget of leases.
void catalog::keep_read(match_piece & piece, lease_budget::hold & reading) {
    lease_budget::hold hold = reading.split(memory_bytes(*piece.entry));
    index_node *       node = index.find(piece.key);
    // an entry that was deleted meanwhile must not come back
    const bool is_known = node && node->is_stored() && !node->is_forgotten;
    if (is_known && node->lease.expired() && !node->in_ram && !node->pending) {
        keep_in_ram(*node, piece.entry);
    }
    if (memory_entry_ptr leased = is_known ? lease(*node) : nullptr) {
        release_later(std::exchange(piece.entry, std::move(leased))); // another lookup may have read it, too
        return;
    }
    const auto mine = std::make_shared<leased_entry>();
    mine->hold      = std::move(hold);
    mine->entry     = std::move(piece.entry);
    piece.entry     = pointer_to(mine);
    if (is_known) {
        node->lease = mine;
    }
}

void catalog::use_piece(match_piece & piece, const memory_access & access) {
    if (index_node * node = index.find(piece.key); node && node->is_stored()) {
        piece.is_first_use = std::exchange(node->is_preloaded, false);
        prove_position(*node, piece.begin);
        touch(*node, access, size_of(*node));
        if (node->in_ram) {
            write_later(*node, node->in_ram, access); // an earlier write may have been dropped
        }
    }
}

bool catalog::use(match_plan & plan, lease_budget::hold & reading, const memory_access & access, size_t max_entries) {
    const size_t n_blocks = plan.blocks.size();
    const size_t n        = n_blocks + (plan.checkpoint ? 1 : 0);
    const auto   piece    = [&](size_t i) -> match_piece & { return i < n_blocks ? plan.blocks[i] : *plan.checkpoint; };
    for (; max_entries > 0 && plan.n_kept < n; max_entries--, plan.n_kept++) {
        if (piece(plan.n_kept).was_read) {
            keep_read(piece(plan.n_kept), reading);
            counters.used_on_disk++;
        } else if (const auto & entry = piece(plan.n_kept).entry) {
            counters.used_in_ram++;
            counters.used_in_ram_bytes += memory_bytes(*entry);
        }
        share_used(piece(plan.n_kept).key, access); // here, as beginnings are to be sent before ends
    }
    // deepest first: the beginning, which others share, then counts as used last, and is evicted after the ends
    for (; max_entries > 0 && plan.n_used < n; max_entries--) {
        use_piece(piece(n - ++plan.n_used), access);
    }
    return plan.n_used < n;
}

} // namespace atlas::memory
