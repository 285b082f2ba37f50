#include "block-log.hpp"

#include <algorithm>
#include <new>

namespace atlas::memory {

static uint64_t number_of(const digest & key) { return std::max<uint64_t>(1, digest_hash()(key)); }

static const tier_state & state_in(const index_node & node, int tier) { return tier == 1 ? node.ram : node.disk; }

// Numbers below 0 stand for what is no text, and those that follow the log have tokens only.
static bool is_text(const index_node & node) {
    return std::none_of(node.tokens.begin(), node.tokens.end(), [](int32_t token) { return token < 0; });
}

static void add_stored(const index_node & node, int tier, block_changes & to) {
    const bool is_first = !node.parent->parent;
    to.changes.push_back({true, tier, number_of(*node.key), is_first ? 0 : number_of(*node.parent->key), node.tokens});
}

void block_log::push(const index_node & node, int tier, bool is_stored) noexcept {
    if (!wanted || node.kind != entry_kind::block || !node.fits || is_anew) {
        return;
    }
    try {
        if (waiting.size() < MAX_WAITING) {
            waiting.push_back({*node.key, (uint8_t) tier, is_stored});
            return;
        }
    } catch (const std::bad_alloc &) {
    }
    // some is lost, so that all is told anew; until then nothing more needs to be kept
    is_anew = true;
    waiting.clear();
}

void block_log::begin(const digest & root) {
    wanted  = root;
    is_anew = true;
    waiting.clear();
}

// Returns how many entries it looked at.
size_t block_log::tell_one(const record & one, block_changes & to, const entry_index & index) const {
    if (!one.is_stored) {
        to.changes.push_back({false, one.tier, number_of(one.key), 0, {}});
        return 1;
    }
    const index_node * node = index.find(one.key);
    if (!node || !state_in(*node, one.tier).present || !is_text(*node)) {
        return 1; // that it left follows
    }
    size_t             n   = 1;
    const index_node * top = node;
    for (; top->parent; top = top->parent) {
        n++;
    }
    if (*top->key == *wanted) {
        add_stored(*node, one.tier, to);
    }
    return n;
}

// Tells what the next nodes are now. Whatever happened to them before was told or is void.
void block_log::walk(block_changes & to, size_t max_entries, entry_index & index) {
    index_node * top  = index.find(*wanted);
    index_node * node = cursor && top ? index.find(*cursor) : top;
    if (top && !node) {
        cursor.reset(); // where it stopped has gone: from the beginning once more
        return;
    }
    for (; node && max_entries > 0; max_entries--) {
        node = entry_index::next(*node, *top);
        if (!node) {
            break;
        }
        cursor = *node->key;
        if (node->kind != entry_kind::block || !node->fits || !node->is_stored() || !is_text(*node)) {
            continue;
        }
        for (const int tier : {1, 2}) {
            if (state_in(*node, tier).present) {
                add_stored(*node, tier, to);
            }
        }
    }
    is_walking = node != nullptr;
}

bool block_log::tell(block_changes & to, size_t max_changes, size_t max_entries, entry_index & index) {
    if (is_anew) {
        if (!to.changes.empty()) {
            to.has_more = true;
            return false; // what is void and what is not do not go together
        }
        to.is_anew = is_walking = true;
        is_anew                 = false;
        cursor.reset();
    }
    size_t n = 0;
    for (; !waiting.empty() && n < max_entries && to.changes.size() < max_changes; waiting.pop_front()) {
        n += tell_one(waiting.front(), to, index);
    }
    // What is there is only told once all that happened before is, or it would seem to have left again.
    if (waiting.empty() && is_walking && n < max_entries && to.changes.size() < max_changes) {
        walk(to, max_entries - n, index);
    }
    to.has_more = is_walking || !waiting.empty();
    return to.has_more && to.changes.size() < max_changes;
}

} // namespace atlas::memory
