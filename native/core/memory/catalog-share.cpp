// The part of the catalog that decides what goes to the tier that servers share, and keeps what comes from there.
#include "catalog.hpp"

namespace atlas::memory {

// The key from which a node's chain begins; null where an entry before it is not there, so that nobody knows. It is looked up
// once for all on the way: the token loop puts the blocks of long conversations.
static const digest * root_of(index_node & node) {
    index_node * known = &node;
    while (!known->root && known->parent && known->position > 0) {
        known = known->parent;
    }
    if (!known->root && !known->parent) {
        return nullptr;
    }
    const auto root = known->root ? known->root : std::make_shared<const digest>(*known->parent->key);
    for (index_node * on = &node; on != known; on = on->parent) {
        on->root = root;
    }
    known->root = root;
    return known->root.get();
}

// uses: how often it is about to be used, besides its touches.
void catalog::share_later(index_node & node, const memory_entry_ptr & entry, const memory_access & access, int uses) {
    if (!sharing || access.max_tier < SHARED_TIER || access.is_held_back || node.share_place > 0 || node.is_in_shared) {
        return;
    }
    const bool is_reused = node.touches + uses > 1 || node.is_live() || !access.session_id.empty();
    const auto policy    = sharing->options.write;
    if (policy == share_policy::all || (policy == share_policy::reused && is_reused)) {
        const digest * root = root_of(node);
        node.share_place    = root ? sharing->push(*node.key, *root, entry) : 0;
    }
}

void catalog::share_used(const digest & key, const memory_access & access) {
    if (index_node * node = sharing ? index.find(key) : nullptr; node && node->is_stored()) {
        if (node->in_ram) {
            share_later(*node, node->in_ram, access, 1);
        }
        if (const digest * root = node->is_in_shared ? root_of(*node) : nullptr) {
            sharing->note_used(key, *root, node->position);
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
        if (const digest * root = root_of(node)) {
            sharing->push_removal(*node.key, *root); // also where it is being sent right now
        }
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
