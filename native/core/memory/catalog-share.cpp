// The part of the catalog that decides what goes to the tier that servers share, and keeps what comes from there.
#include "catalog.hpp"

namespace atlas::memory {

static const digest & root_of(const index_node & node) {
    const index_node * top = &node;
    while (top->parent) {
        top = top->parent;
    }
    return *top->key;
}

// uses: how often it is about to be used, besides its touches.
void catalog::share_later(index_node & node, const memory_entry_ptr & entry, const memory_access & access, int uses) {
    if (!sharing || access.max_tier < SHARED_TIER || access.is_held_back || node.share_place > 0 || node.is_in_shared) {
        return;
    }
    const bool is_reused = node.touches + uses > 1 || node.is_live() || !access.session_id.empty();
    const auto policy    = sharing->options.write;
    if (policy == share_policy::all || (policy == share_policy::reused && is_reused)) {
        node.share_place = sharing->push(*node.key, root_of(node), entry);
    }
}

void catalog::share_used(const digest & key, const memory_access & access) {
    if (index_node * node = sharing ? index.find(key) : nullptr; node && node->is_stored()) {
        if (node->in_ram) {
            share_later(*node, node->in_ram, access, 1);
        }
        if (node->is_in_shared) {
            sharing->note_used(key, root_of(*node), node->position);
        }
    }
}

// What waits is not sent any more.
void catalog::stop_sharing(index_node & node) {
    if (sharing && node.share_place > 0) {
        sharing->drop(node.share_place);
        node.share_place = 0;
    }
}

void catalog::unshare(index_node & node) {
    if (sharing && (node.share_place > 0 || node.is_in_shared)) {
        sharing->push_removal(*node.key, root_of(node)); // also where it is being sent right now
        stop_sharing(node);
        node.is_in_shared = false;
    }
}

void catalog::note_shared(const digest & key, bool has) {
    if (index_node * node = index.find(key)) {
        node->share_place  = 0;
        node->is_in_shared = has;
    }
}

void catalog::share_again(const digest & key) {
    index_node * node = index.find(key);
    if (node && node->in_ram && node->share_place == 0) {
        node->is_in_shared = false;
        share_later(*node, node->in_ram, {}, 1);
    }
}

void catalog::remove_shared(const digest & key, const digest & root) { sharing->push_removal(key, root); }

bool catalog::add_fetched(const memory_entry_ptr & entry, const digest & key, const digest & parent,
                          const memory_access & access) {
    index_node &        node  = add(key, parent, entry->kind, entry->tokens);
    const release_guard guard = {index, key};
    if (node.is_forgotten || (entry->position > 0 && !node.parent->is_stored())) {
        return false; // it was deleted, or what comes before it was evicted meanwhile
    }
    node.is_in_shared = true;
    node.last_use     = ++clock;
    node.strategy     = access.strategy;
    prove_position(node, entry->position);
    if (!node.in_ram && !node.pending && keep_in_ram(node, entry)) {
        ram.set_priority(node);
    }
    write_later(node, entry, access);
    return node.in_ram || node.pending;
}

} // namespace atlas::memory
