#include "catalog.hpp"

#include <algorithm>

namespace atlas::memory {

catalog::catalog(const memory_options & options)
    : events(CLOCK_START), sessions([this](const digest & key, const holds & now) { settle_holds(key, now); }),
      queue(options.write_queue_bytes, std::chrono::duration_cast<write_queue::clock::duration>(
                                           std::chrono::duration<double>(options.write_delay_s))),
      options(options), ram(&index_node::ram, options.ram_bytes), disk(&index_node::disk, options.disk_bytes) {
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
    stats.disk_bytes      = disk.bytes() + doomed_bytes - unstarted_bytes;
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
    return stats;
}

void catalog::count_eviction(const index_node & node, int from_layer, eviction_reason why) {
    if ((from_layer == 1 ? node.ram : node.disk).present) {
        auto & counts = from_layer == 1 ? counters.evictions_ram : counters.evictions_disk;
        counts[(size_t) node.strategy][(size_t) why]++;
    }
}

bool catalog::contains(const digest & key) const {
    const index_node * node = index.find(key);
    return node && node->is_stored() && !node->is_superseded && !node->is_forgotten;
}

// Changes what the order of both layers depends on.
void catalog::rerank(index_node & node, const std::function<void()> & edit) {
    ram.change(node, [&] { disk.change(node, edit); });
}

void catalog::touch(index_node & node, const memory_access & access, uint64_t bytes) {
    constexpr double SECONDS_PER_TOKEN = 0.001; // only ratios matter
    node.last_use                      = ++clock;
    node.strategy                      = access.strategy;
    rerank(node, [&] { node.touches++; });
    settle_pin(node); // there may be room for it now
    ram.set_priority(node);
    disk.set_priority(node);
    // One model, one price: a measured one would only make equal entries look unequal. Without a checkpoint the block that
    // it stands in, at least, would have to be computed.
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
        settle_holds(key, it->second);
    }
    return node;
}

// The checkpoints on the way to a new one: whoever goes on from here needs the last only.
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

// Layer 1

void catalog::put(const memory_entry_ptr & entry, const digest & key, const digest & parent,
                  const std::optional<digest> & supersedes, const memory_access & access) {
    index_node & node   = add(key, parent, entry->kind, entry->tokens);
    const bool   is_new = !node.is_stored();
    if (is_new && entry->position > 0 && !node.parent->is_stored()) {
        counters.orphan_drops++;
        index.release(node);
        return;
    }
    index_node * old = supersedes ? index.find(*supersedes) : nullptr;
    // only what nothing builds on; not being a block, it never will have children
    if (old &&
        (old == &node || !old->is_stored() || old->kind == entry_kind::block || !may_supersede(*supersedes, access))) {
        old = nullptr;
    }
    node.is_superseded = false;
    node.is_forgotten  = false;
    touch(node, access, memory_bytes(*entry));
    if (entry->kind == entry_kind::checkpoint && is_new) {
        dominate(node);
    }
    if (old) {
        count_eviction(*old, 1, eviction_reason::superseded);
        drop_from_ram(*old);
    }
    if (is_new) {
        keep_in_ram(node, entry);
    }
    if (access.max_layer >= 2) {
        write_later(node, entry);
    }
    if (old) {
        supersede(*old, node);
        if (index_node * rest = index.find(*supersedes)) {
            index.release(*rest);
        }
    }
    index.release(node);
}

bool catalog::keep_in_ram(index_node & node, const memory_entry_ptr & entry) {
    const uint64_t bytes = memory_bytes(*entry);
    if (bytes > ram.budget) {
        counters.ram_drops += ram.budget > 0;
        return false;
    }
    node.in_ram = entry;
    ram.add(node, bytes);
    settle_pin(node);
    settle_begun(node);
    while (ram.bytes() > ram.budget) {
        index_node * victim =
            ram.first([&](const index_node & leaf) { return &leaf != &node && leaf.lease.expired(); });
        if (!victim) {
            drop_from_ram(node);
            counters.ram_drops++;
            return false;
        }
        events.evicted(*victim, 1, victim->ram.priority, clock);
        count_eviction(*victim, 1, eviction_reason::budget);
        drop_from_ram(*victim);
        index.release(*victim);
    }
    return true;
}

void catalog::drop_from_ram(index_node & node) {
    if (node.in_ram) {
        node.is_preloaded = false;
        ram.remove(node);
        released.push_back(std::move(node.in_ram));
        node.in_ram.reset();
        settle_pin(node);
        settle_begun(node);
    }
}

// A lease is counted apart from what the layers and the writer hold, so that the node can tell whether there is one.
memory_entry_ptr catalog::lease(index_node & node) const {
    if (memory_entry_ptr held = node.lease.lock()) {
        return held;
    }
    if (!node.in_ram && !node.pending) {
        return nullptr;
    }
    const auto             holder = std::make_shared<memory_entry_ptr>(node.in_ram ? node.in_ram : node.pending->entry);
    const memory_entry_ptr leased(holder, holder->get());
    node.lease = leased;
    return leased;
}

// What is found

uint64_t match_plan::bytes_to_read() const {
    uint64_t bytes = checkpoint ? checkpoint->bytes : 0;
    for (const match_piece & piece : blocks) {
        bytes += piece.bytes;
    }
    return bytes;
}

match_piece catalog::piece_of(index_node & node, size_t begin) const {
    match_piece piece = {*node.key, *node.parent->key, node.kind, {}, begin, lease(node), 0};
    if (!piece.entry) {
        piece.tokens = node.tokens; // to compare with the file's
        piece.bytes  = node.disk.bytes;
    }
    return piece;
}

match_plan catalog::choose(const digest & root, const int32_t * tokens, size_t n_tokens, bool need_checkpoint,
                           int max_layer) {
    const auto may_use = [&](const index_node & node) {
        return !node.is_forgotten && (max_layer >= 2 || node.in_ram || node.pending);
    };
    const size_t              block_tokens = options.block_tokens;
    std::vector<index_node *> chain        = {index.find(root)}; // the root, then blocks
    size_t                    covered      = 0;
    if (!chain[0]) {
        return {};
    }
    while (n_tokens - covered >= block_tokens) {
        index_node * next = index.block(*chain.back(), tokens + covered, block_tokens);
        if (!next || !may_use(*next)) {
            break;
        }
        chain.push_back(next);
        covered += block_tokens;
    }
    const size_t n_full = chain.size() - 1;
    const auto   end    = index.nearest(*chain.back(), tokens + covered, n_tokens - covered);
    if (end.node && may_use(*end.node)) {
        chain.push_back(end.node);
        covered += end.common;
    }

    match_plan plan;
    plan.n_tokens = covered;
    if (need_checkpoint) {
        plan.n_tokens = 0;
        for (size_t i = n_full + 1; i-- > 0 && plan.n_tokens == 0;) {
            const size_t begin = i * block_tokens;
            index_node * found =
                index.checkpoint(*chain[i], tokens + begin, std::min(covered - begin, block_tokens), may_use);
            if (found && begin + found->tokens.size() > 0) {
                plan.n_tokens   = begin + found->tokens.size();
                plan.checkpoint = piece_of(*found, begin);
            }
        }
    }
    for (size_t begin = 0; begin < plan.n_tokens; begin += block_tokens) {
        plan.blocks.push_back(piece_of(*chain[plan.blocks.size() + 1], begin));
    }
    return plan;
}

void catalog::use(match_plan & plan, const memory_access & access) {
    std::vector<match_piece *> pieces;
    for (match_piece & piece : plan.blocks) {
        pieces.push_back(&piece);
    }
    if (plan.checkpoint) {
        pieces.push_back(&*plan.checkpoint);
    }
    for (match_piece * piece : pieces) {
        if (piece->was_read) {
            index_node * node = index.find(piece->key);
            if (!node || !node->is_stored() || node->is_forgotten) {
                continue; // given up while it was read: it must not come back
            }
            if (!node->in_ram && !node->pending) {
                keep_in_ram(*node, piece->entry);
            }
            if (memory_entry_ptr leased = lease(*node)) {
                piece->entry = std::move(leased);
            }
        }
    }
    // deepest first, so that what is shared is used last
    for (auto it = pieces.rbegin(); it != pieces.rend(); ++it) {
        if (index_node * node = index.find((*it)->key); node && node->is_stored()) {
            (*it)->is_first_use = std::exchange(node->is_preloaded, false);
            touch(*node, access, size_of(*node));
            if (node->in_ram && access.max_layer >= 2) {
                write_later(*node, node->in_ram); // where an earlier write was dropped
            }
        }
    }
}

// What follows from files that the indexer or a reader met

void catalog::add_file(const file_header & header, uint64_t bytes, int64_t last_use) {
    if (removed.count(header.key)) {
        return;
    }
    index_node & node = add(header.key, header.parent, header.kind, header.tokens);
    if (node.disk.present) {
        return;
    }
    if (node.position == 0) {
        node.position = header.position;
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
