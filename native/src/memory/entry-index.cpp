#include "entry-index.hpp"

#include <algorithm>
#include <tuple>

namespace atlas::memory {

by_tokens::place by_tokens::of(const index_node * node) {
    return {node->kind == entry_kind::checkpoint, node->tokens.data(), node->tokens.size()};
}

bool by_tokens::operator()(const place & a, const place & b) const {
    if (a.is_checkpoint != b.is_checkpoint) {
        return b.is_checkpoint;
    }
    return std::lexicographical_compare(a.tokens, a.tokens + a.n_tokens, b.tokens, b.tokens + b.n_tokens);
}

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
    const auto it  = nodes.try_emplace(key).first;
    it->second.key = &it->first;
    return it->second;
}

index_node & entry_index::add(const digest & key, const digest & parent_key, entry_kind kind,
                              const memory_tokens & tokens) {
    index_node & node = at(key);
    if (!node.parent) {
        index_node & parent = at(parent_key);
        node.parent         = &parent;
        node.kind           = kind;
        node.tokens         = tokens;
        if (parent.parent) {
            node.position = parent.position + parent.tokens.size();
        }
        parent.children.insert(&node);
    }
    return node;
}

void entry_index::release(index_node & released) {
    for (index_node * node = &released; node && !node->is_stored();) {
        index_node * parent = node->parent;
        if (parent) {
            parent->children.erase(node);
            node->parent = nullptr;
            node->tokens = {};
        }
        if (!node->children.empty()) {
            return;
        }
        nodes.erase(nodes.find(*node->key));
        node = parent;
    }
}

index_node * entry_index::block(const index_node & parent, const int32_t * tokens, size_t n_tokens) const {
    const auto it = parent.children.find(by_tokens::place{false, tokens, n_tokens});
    return it != parent.children.end() && (*it)->kind == entry_kind::block ? *it : nullptr;
}

// In lexicographic order, the entries with the most in common with some tokens are next to where these would be.
entry_index::nearest_match entry_index::nearest(const index_node & parent, const int32_t * tokens,
                                                size_t n_tokens) const {
    nearest_match best;
    const auto    consider = [&](index_node * node) {
        const size_t common = common_prefix(node->tokens, tokens, n_tokens);
        if (node->kind != entry_kind::checkpoint && std::make_tuple(common, best.node ? best.node->tokens.size() : 0) >
                                                        std::make_tuple(best.common, node->tokens.size())) {
            best = {node, common};
        }
    };
    const auto after = parent.children.lower_bound(by_tokens::place{false, tokens, n_tokens});
    if (after != parent.children.begin()) {
        consider(*std::prev(after));
    }
    if (after != parent.children.end()) {
        consider(*after);
    }
    return best;
}

index_node * entry_index::checkpoint(const index_node & parent, const int32_t * tokens, size_t n_tokens,
                                     const std::function<bool(const index_node &)> & may) const {
    while (true) {
        auto it = parent.children.upper_bound(by_tokens::place{true, tokens, n_tokens});
        if (it == parent.children.begin() || (*--it)->kind != entry_kind::checkpoint) {
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
        // whatever leads the tokens and comes before this one leads what the two have in common
        n_tokens = leads ? common - 1 : common;
    }
}

} // namespace atlas::memory
