#include "catalog.hpp"

#include <algorithm>

namespace atlas::memory {

constexpr uint64_t MIN_HELD_BYTES = 64 << 20;

catalog::catalog(const memory_options & options)
    : knows_sessions(!options.awaits_sessions),
      leases(std::make_shared<lease_budget>(std::max(MIN_HELD_BYTES, options.ram_bytes / 8))), events(CLOCK_START),
      sessions([this](const digest & key, const ref_counts & now) { update_refs(key, now); }),
      queue(options.write_queue_bytes, std::chrono::duration_cast<write_queue::clock::duration>(
                                           std::chrono::duration<double>(options.write_delay_s))),
      options(options), index(options.block_tokens), ram(&index_node::ram, options.ram_bytes),
      disk(&index_node::disk, options.disk_bytes) {
    has_disk = !options.path.empty() && options.disk_bytes > 0;
}

static uint64_t for_budget(const eviction_counts & counts) {
    uint64_t sum = 0;
    for (const auto & of_strategy : counts) {
        sum += of_strategy[(size_t) eviction_reason::budget] + of_strategy[(size_t) eviction_reason::orphan];
    }
    return sum;
}

memory_stats catalog::stats() const {
    memory_stats stats    = counters;
    stats.ram_entries     = ram.entries();
    stats.ram_bytes       = ram.bytes();
    stats.disk_entries    = disk.entries();
    stats.disk_bytes      = disk.bytes() + bytes_to_delete - unstarted_bytes;
    stats.index_bytes     = index_bytes();
    stats.pending_entries = queue.entries();
    stats.pending_bytes   = queue.bytes();
    stats.sessions        = sessions.size();
    stats.sessions_in_ram = sessions_in_ram;
    stats.session_drops   = sessions.dropped();
    stats.pinned_bytes    = pinned_bytes;
    stats.pinned_limit    = pinned_limit();
    stats.unpinned_bytes  = refused_bytes;
    stats.event_drops     = events.dropped();
    stats.evicted_ram     = for_budget(stats.evictions_ram);
    stats.evicted_disk    = for_budget(stats.evictions_disk);
    leases->add_to(stats);
    return stats;
}

void catalog::count_eviction(const index_node & node, int from_tier, eviction_reason why) {
    if ((from_tier == 1 ? node.ram : node.disk).present) {
        auto & counts = from_tier == 1 ? counters.evictions_ram : counters.evictions_disk;
        counts[(size_t) node.strategy][(size_t) why]++;
    }
}

bool catalog::contains(const digest & key) const {
    const index_node * node = index.find(key);
    return node && node->is_stored() && !node->is_superseded && !node->is_forgotten;
}

void catalog::touch(index_node & node, const memory_access & access, uint64_t bytes) {
    constexpr double SECONDS_PER_TOKEN = 0.001; // only ratios matter
    node.last_use                      = ++clock;
    node.strategy                      = access.strategy;
    rerank(node, [&] { node.touches++; });
    update_pin(node); // there may be room for its pin now
    ram.set_priority(node);
    disk.set_priority(node);
    // All entries are of one model, so a constant will do: a measured price would only make equal entries look unequal.
    // A checkpoint saves at least the computing of the block that it is in.
    const size_t n_tokens = node.kind == entry_kind::checkpoint ? options.block_tokens : node.tokens.size();
    events.touched(node, bytes, SECONDS_PER_TOKEN * (double) n_tokens);
}

uint64_t catalog::size_of(const index_node & node) const {
    const memory_entry_ptr & entry = node.pending ? node.pending->entry : node.in_ram;
    return entry ? memory_bytes(*entry) : node.disk.bytes;
}

// The node of an entry, made where it is missing.
index_node & catalog::add(const digest & key, const digest & parent, entry_kind kind, const memory_tokens & tokens) {
    index_node & node = index.add(key, parent, kind, tokens);
    if (const auto it = sessions.held().find(key); it != sessions.held().end()) {
        update_refs(key, it->second);
    }
    return node;
}

// Marks the checkpoints of the same conversation before a new one: a request that continues the conversation needs the
// last one only.
void catalog::dominate(index_node & checkpoint) {
    const auto any = [](const index_node &) { return true; };
    for (index_node * next = &checkpoint; next->parent; next = next->parent) {
        for (size_t n_tokens = next->tokens.size(); n_tokens > 0;) {
            index_node * leads = index.checkpoint(*next->parent, next->tokens.data(), n_tokens - 1, any);
            if (!leads) {
                break;
            }
            if (leads->is_on_the_way) {
                return; // and so are those before it
            }
            rerank(*leads, [&] { leads->is_on_the_way = true; });
            n_tokens = leads->tokens.size();
        }
    }
}

// Tier 1

void catalog::put(const memory_entry_ptr & entry, const digest & key, const digest & parent,
                  const std::optional<digest> & supersedes, const memory_access & access) {
    index_node &        node   = add(key, parent, entry->kind, entry->tokens);
    const release_guard guard  = {index, key};
    const bool          is_new = !node.is_stored();
    if (is_new && entry->position > 0 && !node.parent->is_stored()) {
        counters.orphan_drops++;
        return;
    }
    index_node * old = supersedes ? index.find(*supersedes) : nullptr;
    // only a tail or a checkpoint can be superseded: a block may have children
    if (old &&
        (old == &node || !old->is_stored() || old->kind == entry_kind::block || !may_supersede(*supersedes, access))) {
        old = nullptr;
    }
    const release_guard old_guard = {index, supersedes.value_or(key)};
    node.is_superseded            = false;
    node.is_forgotten             = false;
    touch(node, access, memory_bytes(*entry));
    if (entry->kind == entry_kind::checkpoint && is_new) {
        dominate(node);
    }
    if (old) {
        count_eviction(*old, 1, eviction_reason::superseded);
        drop_from_ram(*old);
        stop_sharing(*old);
    }
    if (is_new) {
        keep_in_ram(node, entry);
    }
    if (access.is_held_back) {
        node.held_for = access.max_tier;
    }
    write_later(node, entry, access);
    share_later(node, entry, access);
    if (old) {
        supersede(*old, node);
    }
}

bool catalog::keep_in_ram(index_node & node, const memory_entry_ptr & entry) {
    const uint64_t bytes = memory_bytes(*entry);
    if (bytes > ram.budget) {
        counters.ram_drops += ram.budget > 0;
        return false;
    }
    ram.add(node, bytes);
    blocks.stored(node, 1);
    node.in_ram = entry;
    update_pin(node);
    update_begun(node);
    // without a disk there is no writer, which otherwise keeps the index within its budget
    while (ram.bytes() + leases->of_tier() > ram.budget || (!has_disk && is_index_full())) {
        index_node * victim =
            ram.first([&](const index_node & leaf) { return &leaf != &node && leaf.lease.expired(); });
        if (!victim) {
            drop_from_ram(node);
            counters.ram_drops++;
            return false;
        }
        evict_from_ram(*victim);
        index.release(*victim);
    }
    counters.kept_entries++;
    counters.kept_bytes += bytes;
    return true;
}

void catalog::evict_from_ram(index_node & victim) {
    events.evicted(victim, 1, victim.ram.priority, clock);
    count_eviction(victim, 1, eviction_reason::budget);
    drop_from_ram(victim);
}

// Notes an entry, to be freed without the lock. Where there is no memory for the note it is freed here.
void catalog::release_later(memory_entry_ptr entry) noexcept {
    try {
        released.push_back(std::move(entry));
    } catch (const std::bad_alloc &) {
    }
}

void catalog::drop_from_ram(index_node & node) noexcept {
    if (node.in_ram) {
        node.is_preloaded = false;
        ram.remove(node);
        blocks.removed(node, 1);
        release_later(std::move(node.in_ram));
        account_lease(node, true);
        update_pin(node);
        update_begun(node);
    }
}

// The position that a file names may be wrong; a lookup that came from the root knows the right one.
void catalog::prove_position(index_node & node, uint64_t position) {
    if (node.position != position) {
        node.position = position;
        update_begun(node);
        update_orphan(node);
    }
}

// Files that the indexer or a reader met

void catalog::add_file(const file_header & header, uint64_t bytes, int64_t last_use) {
    if (removed.count(header.key)) {
        return;
    }
    index_node &        node  = add(header.key, header.parent, header.kind, header.tokens);
    const release_guard guard = {index, header.key};
    if (node.disk.present) {
        return;
    }
    if (node.position == 0) {
        node.position = header.position;
        update_begun(node);
    }
    if (node.last_use == 0) {
        node.last_use      = last_use;
        node.disk.priority = last_use;
    }
    add_to_disk(node, bytes);
}

void catalog::lose_file(const digest & key) {
    index_node * node = index.find(key);
    if (node && node->disk.present && !node->pending) {
        count_eviction(*node, 2, eviction_reason::lost);
        take_from_disk(*node);
        index.release(*node);
    }
}

void catalog::remove_damaged_file(const digest & key) {
    counters.bad_checksum++;
    index_node * node = index.find(key);
    if (node && node->disk.present && !node->pending) {
        remove_later(*node, eviction_reason::damaged);
        index.release(*node);
    }
}

} // namespace atlas::memory
