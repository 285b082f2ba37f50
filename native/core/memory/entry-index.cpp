#include "entry-index.hpp"

#include "entry-file.hpp"

#include <algorithm>

namespace atlas::memory {

by_tokens::place by_tokens::of(const index_node * node) {
    return {node->fits, node->kind, node->tokens.data(), node->tokens.size()};
}

// Nodes that fit come last, by kind. So a search does not meet those that files of other servers brought in.
bool by_tokens::operator()(const place & a, const place & b) const {
    const auto group_a = std::make_tuple(a.fits, a.kind), group_b = std::make_tuple(b.fits, b.kind);
    if (group_a != group_b) {
        return group_a < group_b;
    }
    return std::lexicographical_compare(a.tokens, a.tokens + a.n_tokens, b.tokens, b.tokens + b.n_tokens);
}

// Bytes of a node with its places in the map, among its parent's children and in the order of each tier, with the
// record of its file, and with malloc's overhead.
constexpr uint64_t NODE_BYTES = 660;

static uint64_t bytes_of(const memory_tokens & tokens) { return tokens.capacity() * sizeof(tokens[0]); }

static size_t common_prefix(const memory_tokens & a, const int32_t * b, size_t n_b) {
    const size_t n = std::min(a.size(), n_b);
    return std::mismatch(a.begin(), a.begin() + n, b).first - a.begin();
}

index_node * entry_index::find(const digest & key) {
    const auto it = nodes.find(key);
    return it == nodes.end() ? nullptr : &it->second;
}

const index_node * entry_index::find(const digest & key) const {
    const auto it = nodes.find(key);
    return it == nodes.end() ? nullptr : &it->second;
}

index_node & entry_index::at(const digest & key) {
    const auto [it, is_new] = nodes.try_emplace(key);
    it->second.key          = &it->first;
    n_bytes += is_new ? NODE_BYTES : 0;
    return it->second;
}

index_node & entry_index::add(const digest & key, const digest & parent_key, entry_kind kind,
                              const memory_tokens & tokens) {
    if (index_node * known = find(key); known && known->parent) {
        return *known;
    }
    memory_tokens own    = tokens;
    index_node &  parent = at(parent_key);
    index_node *  node   = nullptr;
    try {
        node         = &at(key);
        node->kind   = kind;
        node->tokens = std::move(own);
        node->fits   = has_right_length(kind, tokens.size(), block_tokens);
        parent.children.insert(node); // last: a child of which its parent does not know would outlive it
    } catch (...) {
        if (node) {
            node->tokens = memory_tokens();
            release(*node);
        }
        release(parent);
        throw;
    }
    n_bytes += bytes_of(node->tokens);
    node->parent = &parent;
    node->root   = parent.root;
    if (parent.parent) {
        node->position = parent.position + parent.tokens.size();
    }
    return *node;
}

void entry_index::release(index_node & released) noexcept {
    for (index_node * node = &released; node && !node->is_stored();) {
        index_node * parent = node->parent;
        if (parent) {
            parent->children.erase(node);
            n_bytes -= bytes_of(node->tokens);
            node->parent = nullptr;
            node->tokens = memory_tokens();
        }
        if (node->children.empty()) {
            nodes.erase(nodes.find(*node->key));
            n_bytes -= NODE_BYTES;
        }
        node = parent;
    }
}

index_node * entry_index::next_beside(index_node * node, const index_node & top) {
    for (; node != &top; node = node->parent) {
        const auto & siblings = node->parent->children;
        if (const auto next = siblings.upper_bound(node); next != siblings.end()) {
            return *next;
        }
    }
    return nullptr;
}

index_node * entry_index::block(const index_node & parent, const int32_t * tokens, size_t n_tokens) const {
    const auto it = parent.children.find(by_tokens::place{true, entry_kind::block, tokens, n_tokens});
    return it != parent.children.end() ? *it : nullptr;
}

// In lexicographic order, the entries with the most in common with some tokens are beside the place of these tokens.
entry_index::nearest_match entry_index::nearest(const index_node & parent, const int32_t * tokens,
                                                size_t n_tokens) const {
    nearest_match best;
    for (const entry_kind kind : {entry_kind::block, entry_kind::tail}) {
        const auto consider = [&](index_node * node) {
            const size_t common = common_prefix(node->tokens, tokens, n_tokens);
            if (node->fits && node->kind == kind &&
                std::make_tuple(common, best.node ? best.node->tokens.size() : 0) >
                    std::make_tuple(best.common, node->tokens.size())) {
                best = {node, common};
            }
        };
        const auto after = parent.children.lower_bound(by_tokens::place{true, kind, tokens, n_tokens});
        if (after != parent.children.begin()) {
            consider(*std::prev(after));
        }
        if (after != parent.children.end()) {
            consider(*after);
        }
    }
    return best;
}

index_node * entry_index::checkpoint(const index_node & parent, const int32_t * tokens, size_t n_tokens,
                                     const std::function<bool(const index_node &)> & may) const {
    while (true) {
        auto it = parent.children.upper_bound(by_tokens::place{true, entry_kind::checkpoint, tokens, n_tokens});
        if (it == parent.children.begin() || !(*--it)->fits || (*it)->kind != entry_kind::checkpoint) {
            return nullptr;
        }
        const size_t common = common_prefix((*it)->tokens, tokens, n_tokens);
        const bool   leads  = common == (*it)->tokens.size();
        if (leads && may(**it)) {
            return *it;
        }
        if (leads && common == 0) {
            return nullptr;
        }
        // a shorter checkpoint that is at the beginning of the tokens, too, is at the beginning of this one
        n_tokens = leads ? common - 1 : common;
    }
}

} // namespace atlas::memory
