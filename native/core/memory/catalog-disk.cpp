// The part of the catalog that decides what is on disk: writes, removals, the budget and orphans.
#include "catalog.hpp"

namespace atlas::memory {

void catalog::write_later(index_node & node, const memory_entry_ptr & entry, const memory_access & access) {
    if (!has_disk || node.pending || node.disk.present || access.max_tier < 2) {
        return;
    }
    if (access.is_held_back) {
        return;
    }
    if (bytes_on_disk(entry->tokens.size(), entry->data.size()) > disk.budget || !queue.push(node, entry)) {
        counters.write_drops++;
    }
    update_pin(node);
}

// Ends a pending write, done or not needed any more.
void catalog::finish_write(index_node & node) {
    release_later(queue.finish(node));
    account_lease(node, false);
    update_pin(node);
}

// The old entry leaves the disk once the new one is durable: a crash leaves one of them. When the new one will not be
// on disk, the old one stays there.
void catalog::supersede(index_node & old, index_node & by) {
    if (!by.pending && !by.disk.present) {
        return;
    }
    std::vector<digest> replaced;
    if (old.pending) {
        replaced = std::move(old.pending->replaces);
        if (!old.pending->is_being_written) {
            finish_write(old);
        }
    }
    if (old.disk.present) {
        old.is_superseded = true;
        replaced.push_back(*old.key);
    }
    for (const digest & key : replaced) {
        if (by.pending) {
            by.pending->replaces.push_back(key);
        } else {
            remove_replaced(key);
        }
    }
}

void catalog::remove_replaced(const digest & key) {
    index_node * node = index.find(key);
    if (node && node->is_superseded && node->disk.present) {
        remove_later(*node, eviction_reason::superseded);
        index.release(*node);
    }
}

void catalog::remove_later(index_node & node, eviction_reason why) { queue.push_removal(start_delete(node, why)); }

std::list<stored_file> catalog::start_delete(index_node & node, eviction_reason why) {
    count_eviction(node, 2, why);
    bytes_to_delete += node.disk.bytes;
    if (!knows_files) {
        try {
            removed.insert(*node.key);
        } catch (const std::bad_alloc &) { // then the indexer may add the entry, and a lookup finds its file missing
        }
    }
    std::list<stored_file> to_delete = std::move(node.file);
    take_from_disk(node);
    return to_delete;
}

// Counts the nodes of the index, and per entry in RAM or in the write queue what that takes besides its state: strings,
// headers, records.
uint64_t catalog::index_bytes() const {
    constexpr uint64_t IN_RAM = 400, PENDING = 300;
    uint64_t           bytes = index.bytes() + IN_RAM * ram.entries() + PENDING * queue.entries();
    for (const auto & one : sharing_of) {
        bytes += one ? one->overhead() : 0;
    }
    return bytes;
}

// Evicts an entry from the disk to keep a budget.
std::list<stored_file> catalog::evict_from_disk(index_node & victim) {
    events.evicted(victim, 2, victim.disk.priority, clock);
    auto to_delete = start_delete(victim, victim.disk.is_orphan ? eviction_reason::orphan : eviction_reason::budget);
    index.release(victim);
    return to_delete;
}

uint64_t catalog::bytes_on_disk(size_t n_tokens, uint64_t data_bytes) const {
    return options.seal ? sealed_file_bytes(n_tokens, data_bytes) : file_bytes(n_tokens, data_bytes);
}

bool catalog::must_remove(const stored_file & file) const {
    const index_node * node = index.find(file.key);
    return !node || !node->disk.present;
}

std::optional<write_task> catalog::begin_write(const disk_job & job) {
    index_node * const node = index.find(job.key); // pending, so it is there
    if (node->disk.present) { // the indexer found that it is there
        end_write(job, true);
        return std::nullopt;
    }
    write_task task;
    task.key               = job.key;
    task.entry             = node->pending->entry;
    task.header.key        = job.key;
    task.header.parent     = *node->parent->key;
    task.header.kind       = node->kind;
    task.header.tokens     = node->tokens;
    task.header.position   = node->position;
    task.header.data_bytes = task.entry->data.size();
    const uint64_t bytes   = bytes_on_disk(node->tokens.size(), task.header.data_bytes);
    if (!may_evict() && disk.bytes() + bytes > disk.budget) {
        queue.postpone();
        return std::nullopt;
    }
    bool has_room = true;
    add_to_disk(*node, bytes); // before room is made for it: then its parent is no leaf, and cannot be evicted for it
    node->pending->is_being_written = true;
    while (has_room && disk.bytes() > disk.budget) { // files that are to be removed are not in disk.bytes() any more
        index_node * victim = disk.first([&](const index_node & leaf) { return &leaf != node; });
        has_room            = victim != nullptr;
        if (victim) {
            task.victims.splice(task.victims.end(), evict_from_disk(*victim));
        }
    }
    if (has_room) {
        if (knows_sessions && is_index_full()) {
            // one entry for one: entries of the write queue are not on disk yet, and others should not be evicted for
            // them
            leave_index(task.victims);
        }
        unstarted_bytes = bytes;
        return task;
    }
    queue.push_removal(std::move(task.victims));
    take_from_disk(*node);
    finish_write(*node);
    index.release(*node);
    counters.write_drops++;
    return std::nullopt;
}

bool catalog::start_write() {
    const bool has_room = disk.bytes() + bytes_to_delete <= disk.budget;
    unstarted_bytes     = has_room ? 0 : unstarted_bytes;
    return has_room;
}

void catalog::note_written(const disk_job & job, uint64_t bytes, double seconds) {
    const index_node & node = *index.find(job.key); // pending, so it is there
    if (!node.is_forgotten) {
        events.written(node, bytes, seconds);
    }
}

void catalog::end_write(const disk_job & job, bool is_written) {
    index_node & node = *index.find(job.key); // pending, so it is there
    unstarted_bytes   = 0;
    if (is_written) {
        const std::vector<digest> replaces = std::move(node.pending->replaces);
        finish_write(node);
        for (const digest & key : replaces) {
            remove_replaced(key);
        }
    } else {
        const bool is_needed           = !node.is_superseded && !node.is_forgotten;
        node.pending->is_being_written = false;
        if (node.disk.present) {
            take_from_disk(node);
        }
        if (is_needed) {
            queue.push_again(node);
        } else {
            finish_write(node);
        }
    }
    if (node.is_forgotten && !node.pending) {
        node.is_forgotten = false;
        if (node.disk.present) {
            remove_later(node, eviction_reason::forgotten);
        }
    }
    index.release(node);
}

std::list<stored_file> catalog::trim(size_t max_entries) {
    std::list<stored_file> victims;
    const uint64_t         to_delete = bytes_to_delete; // without the entries that this call evicts: they do make room
    for (; max_entries > 0; max_entries--) {
        if (knows_sessions && is_index_full() && leave_index(victims)) {
            continue;
        }
        const bool   is_over = may_evict() && disk.bytes() + to_delete > disk.budget;
        index_node * victim  = is_over ? disk.first([](const index_node &) { return true; }) : nullptr;
        if (!victim) {
            break;
        }
        victims.splice(victims.end(), evict_from_disk(*victim));
    }
    return victims;
}

// Evicts an entry from all tiers, so that its node leaves the index. Returns false where none can be evicted.
bool catalog::leave_index(std::list<stored_file> & files) {
    const auto   may_leave_ram = [](const index_node & node) { return node.ram.children == 0 && node.lease.expired(); };
    index_node * victim =
        disk.first([&](const index_node & node) { return !node.pending && (!node.in_ram || may_leave_ram(node)); });
    if (!victim) {
        victim = ram.first([&](const index_node & node) { return !node.pending && may_leave_ram(node); });
    }
    if (!victim) {
        return false;
    }
    if (victim->in_ram) {
        evict_from_ram(*victim);
    }
    if (victim->disk.present) {
        files.splice(files.end(), evict_from_disk(*victim));
    } else {
        index.release(*victim);
    }
    return true;
}

bool catalog::resume_writes(size_t max_writes) { return may_evict() && queue.resume(max_writes); }

void catalog::add_to_disk(index_node & node, uint64_t bytes) {
    std::list<stored_file> file = {{*node.key, bytes}};
    disk.add(node, bytes);
    blocks.stored(node, 2);
    node.file = std::move(file);
    update_pin(node);
    update_orphan(node);
    update_orphans_below(node);
}

void catalog::take_from_disk(index_node & node) {
    disk.remove(node);
    blocks.removed(node, 2);
    node.file.clear();
    node.is_superseded = false;
    update_pin(node);
    update_orphans_below(node);
}

void catalog::update_files(const digest * keys, size_t n_keys) {
    knows_files = true;
    removed.clear();
    for (size_t i = 0; i < n_keys; i++) {
        if (index_node * node = index.find(keys[i]); node && node->disk.present) { // else it was lost meanwhile
            update_orphan(*node);
            if (node->kind == entry_kind::checkpoint) {
                dominate(*node);
            }
        }
    }
}

void catalog::update_orphans_below(index_node & node) {
    for (index_node * child : node.children) {
        update_orphan(*child);
    }
}

void catalog::update_orphan(index_node & top) {
    entry_index::walk(top, [&](index_node & node) {
        const bool is_orphan = node.position > 0 && (!node.parent->disk.present || node.parent->disk.is_orphan);
        const bool changes   = knows_files && node.disk.present && node.disk.is_orphan != is_orphan;
        if (changes) {
            disk.change(node, [&] { node.disk.is_orphan = is_orphan; });
        }
        return changes;
    });
}

} // namespace atlas::memory
