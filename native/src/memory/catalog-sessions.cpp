// The part of the catalog that keeps what belongs to sessions, and what a policy decides.
#include "catalog.hpp"

#include <algorithm>

namespace atlas::memory {

void catalog::settle_holds(const digest & key, const holds & now) {
    if (index_node * node = index.find(key)) {
        ram.change(*node, [&] {
            disk.change(*node, [&] {
                node->is_live   = now.n_sessions > 0;
                node->is_pinned = now.n_pins > 0;
            });
        });
    }
}

void catalog::set_priority(int in_layer, const digest & key, int64_t now, int64_t priority) {
    // a sum that does not overflow whatever the policy says
    const int64_t bounded = std::clamp<int64_t>(priority, -CLOCK_START, CLOCK_START / 2);
    index_node *  node    = index.find(key);
    if (node && node->last_use == now) {
        (in_layer == 1 ? ram : disk).set_priority(*node, CLOCK_START + bounded);
    }
}

memory_session catalog::describe(const std::string & id, const session & of) const {
    memory_session described;
    described.id        = id;
    described.n_tokens  = of.n_tokens;
    described.last_used = of.last_used;
    described.is_pinned = of.is_pinned;
    described.version   = of.version;
    for (const digest & key : of.chain) {
        described.chain.push_back(digest_hex(key));
        if (const index_node * node = index.find(key)) {
            described.ram_bytes += node->ram.bytes;
            described.disk_bytes += node->disk.bytes;
        }
    }
    return described;
}

uint64_t catalog::bytes_of(const session & of) const {
    uint64_t bytes = 0;
    for (const digest & key : of.chain) {
        const index_node * node = index.find(key);
        bytes += node ? size_of(*node) : 0;
    }
    return bytes;
}

uint64_t catalog::pinned_limit() const { return (has_disk ? disk.budget : ram.budget) / 2; }

uint64_t catalog::pinned_bytes() const {
    uint64_t bytes = 0;
    for (const std::string & id : sessions.pinned()) {
        bytes += bytes_of(*sessions.find(id));
    }
    return bytes;
}

std::string catalog::pin(const std::string & id, bool is_pinned) {
    const session * of = sessions.find(id);
    if (of && is_pinned && !of->is_pinned) {
        const uint64_t bytes = pinned_bytes() + bytes_of(*of);
        if (bytes > pinned_limit()) {
            return "pinning session '" + id + "' would pin " + std::to_string(bytes) + " bytes; at most " +
                   std::to_string(pinned_limit()) + " can be, half of the " + (has_disk ? "disk" : "RAM") +
                   " layer: unpin another session, or give the layer more room";
        }
    }
    sessions.set_pinned(id, is_pinned);
    return "";
}

// Takes an entry out of all layers. Returns the bytes that it took.
uint64_t catalog::forget(index_node & node, released_state & released) {
    const uint64_t bytes = node.ram.bytes + node.disk.bytes;
    drop_from_ram(node, released);
    if (node.pending && node.pending->is_being_written) {
        node.is_forgotten = true;
    } else {
        if (node.pending) {
            // nothing will replace them any more
            const std::vector<digest> replaced = std::move(node.pending->replaces);
            released.push_back(node.pending->entry);
            queue.settle(node);
            for (const digest & key : replaced) {
                remove_replaced(key);
            }
        }
        if (node.disk.present) {
            remove_later(node);
        }
    }
    index.release(node);
    return bytes;
}

std::optional<uint64_t> catalog::remove_session(const std::string & id, bool with_entries, released_state & released) {
    const auto removed = sessions.remove(id);
    if (!removed) {
        return std::nullopt;
    }
    uint64_t bytes = 0;
    for (auto key = removed->chain.rbegin(); with_entries && key != removed->chain.rend(); ++key) {
        index_node * node = index.find(*key);
        if (!node || !node->is_stored() || node->is_live) {
            continue;
        }
        // what hangs on a block and is no conversation's own: checkpoints on the way
        std::vector<digest> own;
        bool                is_shared = false;
        for (const index_node * child : node->children) {
            own.push_back(*child->key);
            is_shared |= child->is_stored() && !child->is_forgotten && !child->is_superseded &&
                         (child->kind != entry_kind::checkpoint || child->is_live);
        }
        if (is_shared) {
            break;
        }
        own.push_back(*key);
        for (const digest & one : own) {
            if (index_node * found = index.find(one); found && found->is_stored() && !found->is_forgotten) {
                bytes += forget(*found, released);
            }
        }
    }
    return bytes;
}

} // namespace atlas::memory
