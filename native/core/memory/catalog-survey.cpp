// The part of the catalog that looks at all that is kept below a root.
#include "catalog.hpp"

#include <algorithm>
#include <functional>

namespace atlas::memory {

static size_t count_up_to(const index_node & end, size_t max_tokens) {
    size_t n = 0;
    for (const index_node * node = &end; node->parent && n <= max_tokens; node = node->parent) {
        n += node->tokens.size();
    }
    return n;
}

static memory_tokens tokens_up_to(const index_node & end) {
    memory_tokens tokens;
    for (const index_node * node = &end; node->parent; node = node->parent) {
        tokens.insert(tokens.begin(), node->tokens.begin(), node->tokens.end());
    }
    return tokens;
}

static bool is_conversation(const index_node & node) {
    return node.kind != entry_kind::checkpoint &&
           std::none_of(node.children.begin(), node.children.end(),
                        [](const index_node * child) { return child->kind != entry_kind::checkpoint; });
}

// Keeps the ends that were used last.
static void consider(survey & survey, const index_node & node) {
    const bool   is_end = (node.kind == entry_kind::checkpoint) == survey.need_checkpoint && node.fits;
    const size_t n      = is_end ? count_up_to(node, survey.max_tokens) : 0;
    if (n == 0 || n > survey.max_tokens || survey.n_beginnings == 0) {
        return;
    }
    survey.latest.emplace_back(node.last_use, *node.key);
    std::sort(survey.latest.begin(), survey.latest.end(), std::greater<>());
    survey.latest.resize(std::min(survey.latest.size(), survey.n_beginnings));
}

bool catalog::look_on(survey & survey, size_t max_entries) {
    index_node * top  = index.find(survey.root);
    index_node * node = survey.cursor ? index.find(*survey.cursor) : top;
    for (; top && node && max_entries > 0; max_entries--) {
        node = entry_index::next(*node, *top);
        if (node) {
            survey.cursor = *node->key;
            survey.found.entries += node->is_stored() ? 1 : 0;
            survey.found.conversations += node->is_stored() && is_conversation(*node) ? 1 : 0;
            consider(survey, *node);
        }
    }
    if (top && node) {
        return true;
    }
    for (const auto & [last_use, key] : survey.latest) {
        if (const index_node * end = index.find(key)) {
            survey.found.beginnings.push_back(tokens_up_to(*end));
        }
    }
    return false;
}

} // namespace atlas::memory
