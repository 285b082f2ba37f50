// The part of the catalog that keeps entries for their sessions, and takes a policy's priorities.
#include "catalog.hpp"

#include <algorithm>

namespace atlas::memory {

void catalog::update_refs(const digest & key, const ref_counts & now) {
    if (index_node * node = index.find(key)) {
        rerank(*node, [&] { node->n_sessions = now.n_sessions; });
        node->is_draft = now.is_draft;
        update_begun(*node);
        node->wants_pin = now.n_pins > 0;
        update_pin(*node);
    }
}

// Counts the sessions that have something in RAM. Entries are evicted leaf first, so such a session has its first block
// there, or its tail if it has no block.
void catalog::update_begun(index_node & node) {
    const bool is_beginning = node.in_ram && node.position == 0 && node.kind != entry_kind::checkpoint;
    sessions_in_ram -= node.n_begun;
    node.n_begun = is_beginning && !node.is_draft ? node.n_sessions : 0;
    sessions_in_ram += node.n_begun;
}

// Pins an entry that wants to be, if there is room and the entry before it is pinned: so the ends of conversations are
// what is beyond the limit. A change goes on to the entries that continue it.
void catalog::update_pin(index_node & top) {
    entry_index::walk(top, [&](index_node & node) {
        if (!node.wants_pin && node.pin_bytes == 0) {
            return false;
        }
        (node.is_pinned ? pinned_bytes : refused_bytes) -= node.pin_bytes;
        node.pin_bytes       = node.wants_pin ? size_of(node) : 0;
        const bool is_behind = node.position == 0 || (node.parent && node.parent->is_pinned);
        const bool is_pinned = node.pin_bytes > 0 && is_behind && pinned_bytes + node.pin_bytes <= pinned_limit();
        (is_pinned ? pinned_bytes : refused_bytes) += node.pin_bytes;
        if (node.is_pinned == is_pinned) {
            return false;
        }
        rerank(node, [&] { node.is_pinned = is_pinned; });
        return true;
    });
}

// An entry of a session may only be superseded by that session's own next turn, and not where other sessions have it,
// too.
bool catalog::may_supersede(const digest & key, const memory_access & access) const {
    const auto it = sessions.held().find(key);
    return it == sessions.held().end() || (it->second.n_sessions == 1 && sessions.has(access.session_id, key));
}

void catalog::set_priority(int in_tier, const digest & key, int64_t now, int64_t priority) {
    // a sum that does not overflow whatever the policy says
    const int64_t bounded = std::clamp<int64_t>(priority, -CLOCK_START, CLOCK_START / 2);
    index_node *  node    = index.find(key);
    if (node && node->last_use == now) {
        (in_tier == 1 ? ram : disk).set_priority(*node, CLOCK_START + bounded);
    }
}

void catalog::add_sizes(const digest * keys, size_t n_keys, memory_session & to) const {
    for (size_t i = 0; i < n_keys; i++) {
        if (const index_node * node = index.find(keys[i])) {
            to.ram_bytes += node->ram.bytes;
            to.disk_bytes += node->disk.bytes;
            to.pinned_bytes += node->is_pinned ? node->pin_bytes : 0;
        }
    }
}

uint64_t catalog::unpinned_bytes(const digest * keys, size_t n_keys) const {
    uint64_t bytes = 0;
    for (size_t i = 0; i < n_keys; i++) {
        const index_node * node = index.find(keys[i]);
        bytes += node && !node->is_pinned ? size_of(*node) : 0;
    }
    return bytes;
}

uint64_t catalog::pinned_limit() const { return (has_disk ? disk.budget : ram.budget) / 2; }

std::string catalog::pin(const std::string & id, uint64_t more_bytes) {
    const session * of    = sessions.find(id);
    const uint64_t  bytes = pinned_bytes + more_bytes;
    if (of && !of->is_pinned && bytes > pinned_limit()) {
        return "pinning session '" + id + "' would pin " + std::to_string(bytes) + " bytes; at most " +
               std::to_string(pinned_limit()) + " can be, half of the " + (has_disk ? "disk" : "RAM") +
               " layer: unpin another session, or give the layer more room";
    }
    sessions.set_pinned(id, true);
    return "";
}

// Deletes an entry from all tiers. Returns the bytes that it took.
uint64_t catalog::forget(index_node & node) {
    const uint64_t bytes = node.ram.bytes + node.disk.bytes;
    count_eviction(node, 1, eviction_reason::forgotten);
    drop_from_ram(node);
    unshare(node);
    if (node.pending && node.pending->is_being_written) {
        node.is_forgotten = true;
    } else {
        if (node.pending) {
            // the entry will not be written, so the files that it was to replace are removed here
            const std::vector<digest> replaced = std::move(node.pending->replaces);
            finish_write(node);
            for (const digest & key : replaced) {
                remove_replaced(key);
            }
        }
        if (node.disk.present) {
            remove_later(node, eviction_reason::forgotten);
        }
    }
    index.release(node);
    return bytes;
}

// Whether another conversation continues a block. A checkpoint on the way to others counts only where a session has it.
static bool is_shared(const index_node & node) {
    return std::any_of(node.children.begin(), node.children.end(), [](const index_node * child) {
        return child->is_stored() && !child->is_forgotten && !child->is_superseded &&
               (child->kind != entry_kind::checkpoint || child->is_live());
    });
}

static index_node * kept_child(const index_node & node) {
    const auto it = std::find_if(node.children.begin(), node.children.end(),
                                 [](const index_node * child) { return child->is_stored() && !child->is_forgotten; });
    return it == node.children.end() ? nullptr : *it;
}

uint64_t catalog::unref(session & taken, bool & is_unwanted, size_t max_entries) {
    uint64_t bytes = 0;
    for (; max_entries > 0 && !taken.chain.empty(); max_entries--) {
        const digest key  = sessions.unref_last(taken);
        index_node * node = index.find(key);
        if (!is_unwanted || !node || !node->is_stored() || node->is_live()) {
            continue;
        }
        if (is_shared(*node)) {
            is_unwanted = false;
            continue;
        }
        // deleting one child may release others
        for (index_node * own = kept_child(*node); own; own = kept_child(*node)) {
            bytes += forget(*own);
        }
        bytes += node->is_forgotten ? 0 : forget(*node);
    }
    return bytes;
}

} // namespace atlas::memory
