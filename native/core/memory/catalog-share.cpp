// The part of the catalog that decides what goes to tiers beyond this machine, and keeps what comes from there.
#include "catalog.hpp"

#include <algorithm>

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

static uint8_t bit_of(int tier) { return (uint8_t) (1u << (unsigned) (tier - SHARED_TIER)); }

// Calls act(tier, queue) for the tiers that are used, in order.
template <typename Q, typename F> static void for_tiers(Q & of, F act) {
    for (int tier = SHARED_TIER; tier <= MAX_TIER; tier++) {
        if (auto & queue = of[(size_t) (tier - SHARED_TIER)]; queue && queue->is_open()) {
            act(tier, *queue);
        }
    }
}

bool catalog::is_in(int tier, const index_node & node) const {
    const share_queue * queue = sharing(tier);
    return queue && node.shared_in[(size_t) (tier - SHARED_TIER)] == queue->life();
}

void catalog::set_in(int tier, index_node & node, bool is_there) {
    node.shared_in[(size_t) (tier - SHARED_TIER)] = is_there ? sharing(tier)->life() : 0;
}

// Each has its part, so that one that does not work takes no room from the others.
void catalog::share_budgets() {
    n_sharing = 0;
    for_tiers(sharing_of, [&](int, share_queue &) { n_sharing++; });
    for_tiers(sharing_of, [&](int, share_queue & queue) { queue.set_budget(queue.options.queue_bytes / n_sharing); });
}

share_queue & catalog::open_sharing(int tier, const shared_options & with) {
    auto & queue = sharing_of.at((size_t) (tier - SHARED_TIER));
    if (!queue) {
        queue.emplace(with);
    }
    queue->open();
    share_budgets();
    return *queue;
}

void catalog::close_sharing(int tier) {
    if (share_queue * queue = sharing(tier)) {
        queue->close();
        share_budgets();
    }
}

// uses: how often it is about to be used, besides its touches.
void catalog::share_later(index_node & node, const memory_entry_ptr & entry, const memory_access & access, int uses) {
    if (n_sharing == 0) {
        return;
    }
    for_tiers(sharing_of, [&](int tier, share_queue &) { share_in(tier, node, entry, access, uses); });
}

void catalog::share_in(int tier, index_node & node, const memory_entry_ptr & entry, const memory_access & access,
                       int uses) {
    if (access.max_tier < tier || access.is_held_back || (node.share_waits & bit_of(tier)) != 0 || is_in(tier, node)) {
        return;
    }
    share_queue & queue     = *sharing(tier);
    const bool    is_reused = node.touches + uses > 1 || node.is_live() || !access.session_id.empty();
    const auto    policy    = queue.options.write;
    if (policy == share_policy::all || (policy == share_policy::reused && is_reused)) {
        if (const digest * root = root_of(node); root && queue.push(*node.key, *root, entry)) {
            node.share_waits |= bit_of(tier);
        }
    }
}

void catalog::share_used(const digest & key, const memory_access & access) {
    if (index_node * node = n_sharing > 0 ? index.find(key) : nullptr; node && node->is_stored()) {
        if (node->in_ram) {
            share_later(*node, node->in_ram, access, 1);
        }
        for_tiers(sharing_of, [&](int tier, share_queue & queue) {
            if (const digest * root = is_in(tier, *node) ? root_of(*node) : nullptr) {
                queue.note_used(key, *root, node->position);
            }
        });
    }
}

// What waits is not sent any more.
void catalog::stop_sharing(index_node & node) {
    for (auto & queue : sharing_of) {
        if (queue && node.share_waits != 0) {
            queue->drop(*node.key); // also where the tier is not used any more
        }
    }
    node.share_waits = 0;
}

void catalog::unshare(index_node & node) {
    for_tiers(sharing_of, [&](int tier, share_queue & queue) {
        if ((node.share_waits & bit_of(tier)) == 0 && !is_in(tier, node)) {
            return;
        }
        if (const digest * root = root_of(node)) {
            queue.push_removal(*node.key, *root); // also where it is being sent right now
        }
    });
    stop_sharing(node);
    node.shared_in = {};
}

void catalog::note_shared(int tier, const digest & key, bool has) {
    if (index_node * node = index.find(key)) {
        node->share_waits &= (uint8_t) ~bit_of(tier);
        set_in(tier, *node, has);
    }
}

void catalog::share_again(int tier, const digest & key) {
    index_node * node = index.find(key);
    if (node && node->in_ram && (node->share_waits & bit_of(tier)) == 0) {
        set_in(tier, *node, false);
        share_in(tier, *node, node->in_ram, {}, 1);
    }
}

void catalog::remove_shared(int tier, const digest & key, const digest & root) {
    sharing(tier)->push_removal(key, root);
}

bool catalog::add_fetched(int tier, const memory_entry_ptr & entry, const digest & key, const digest & parent,
                          const memory_access & access) {
    index_node &        node  = add(key, parent, entry->kind, entry->tokens);
    const release_guard guard = {index, key};
    if (node.is_forgotten || (entry->position > 0 && !node.parent->is_stored())) {
        return false; // it was deleted, or what comes before it was evicted meanwhile
    }
    set_in(tier, node, true);
    node.last_use = ++clock;
    node.strategy = access.strategy;
    prove_position(node, entry->position);
    if (!node.in_ram && !node.pending && keep_in_ram(node, entry)) {
        ram.set_priority(node);
    }
    write_later(node, entry, access);
    return node.in_ram || node.pending;
}

} // namespace atlas::memory
