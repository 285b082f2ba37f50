#include "adoption.hpp"

#include <unordered_map>
#include <utility>

namespace atlas::memory {

namespace {

constexpr size_t SESSIONS_AT_ONCE = 4; // renamed under one hold of the mutex, for which the token loop may have to wait

struct adopted_parent {
    digest      was;
    std::string is; // its key now
};

} // namespace

std::vector<held_entry> catalog::held_below(const digest & parent, size_t max_entries) const {
    std::vector<held_entry>  found;
    const index_node * const node = index.find(parent);
    if (!node) {
        return found;
    }
    for (index_node * child : node->children) {
        if (child->in_ram && found.size() < max_entries) {
            memory_access access;
            access.strategy = child->strategy;
            access.max_tier = child->held_for;
            found.push_back({lease(*child), access});
        }
    }
    return found;
}

void catalog::drop_held(const digest & key) {
    if (index_node * node = index.find(key)) {
        drop_from_ram(*node);
        index.release(*node);
    }
}

// An entry's key follows from its parent's, so each is put again, from the root outwards. What it was goes just before,
// so that nothing has to make room for it.
void adopt(memory_store & store, shared_state & state, const digest & from, const digest & to) {
    std::unordered_map<digest, digest, digest_hash> keys;
    std::vector<adopted_parent>                     parents = {{from, digest_hex(to)}};
    while (!parents.empty()) {
        const adopted_parent    parent = parents.back();
        std::vector<held_entry> children;
        {
            const std::lock_guard<std::mutex> held(state.mutex);
            if (state.is_stopping) {
                return;
            }
            children = state.entries.held_below(parent.was, AT_ONCE);
        }
        if (children.empty()) {
            parents.pop_back();
        }
        for (held_entry & child : children) {
            const digest was = *digest_from_hex(child.entry->key);
            memory_entry again;
            again.kind           = child.entry->kind;
            again.parent         = parent.is;
            again.tokens         = child.entry->tokens;
            again.data           = child.entry->data;
            again.position       = child.entry->position;
            const bool may_go_on = again.kind == entry_kind::block;
            child.entry.reset(); // a leased entry takes room even after it was dropped
            {
                const std::lock_guard<std::mutex> held(state.mutex);
                state.entries.drop_held(was);
            }
            const std::string key = store.put(std::move(again), "", child.access);
            keys.emplace(was, *digest_from_hex(key));
            if (may_go_on) {
                parents.push_back({was, key});
            }
        }
    }
    uint64_t version = 0;
    state.in_steps(
        [&] { return !state.is_stopping && state.entries.sessions.rename(keys, version, SESSIONS_AT_ONCE); });
}

} // namespace atlas::memory
