// The part of the catalog that decides what is on disk: writes, removals, the budget and orphans.
#include "catalog.hpp"

namespace atlas::memory {

void catalog::write_later(index_node & node, const memory_entry_ptr & entry) {
    if (!has_disk || node.pending || node.disk.present) {
        return;
    }
    if (file_bytes(entry->tokens.size(), entry->data.size()) > disk.budget || !queue.push(node, entry)) {
        counters.write_drops++;
    }
    settle_pin(node);
}

// Ends a pending write, done or not needed any more.
void catalog::settle_write(index_node & node) {
    released.push_back(queue.settle(node));
    settle_pin(node);
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
            settle_write(old);
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

void catalog::remove_later(index_node & node, eviction_reason why) { queue.push_removal(doom(node, why)); }

doomed_file catalog::doom(index_node & node, eviction_reason why) {
    count_eviction(node, 2, why);
    const doomed_file file = {*node.key, node.disk.bytes};
    doomed_bytes += file.bytes;
    if (!knows_files) {
        removed.insert(file.key);
    }
    take_from_disk(node);
    return file;
}

// For the budget.
doomed_file catalog::give_up(index_node & victim) {
    events.evicted(victim, 2, victim.disk.priority, clock);
    const doomed_file file = doom(victim, victim.disk.is_orphan ? eviction_reason::orphan : eviction_reason::budget);
    index.release(victim);
    return file;
}

void catalog::end_removal(const doomed_file & file) {
    doomed_bytes -= file.bytes;
    lose_file(file.key); // where it was written anew before an earlier removal succeeded
}

std::optional<write_task> catalog::begin_write(const disk_job & job) {
    index_node * const node = index.find(job.key); // pending, so it is there
    if (node->disk.present) { // the indexer found that it is there
        end_write(job, true);
        return std::nullopt;
    }
    write_task task;
    task.key                        = job.key;
    task.entry                      = node->pending->entry;
    task.header.key                 = job.key;
    task.header.parent              = *node->parent->key;
    task.header.kind                = node->kind;
    task.header.tokens              = node->tokens;
    task.header.position            = node->position;
    task.header.data_bytes          = task.entry->data.size();
    const uint64_t bytes            = file_bytes(node->tokens.size(), task.header.data_bytes);
    bool           has_room         = true;
    node->pending->is_being_written = true;
    add_to_disk(*node, bytes); // before room is made for it, so that its parent is no leaf
    while (has_room && disk.bytes() > disk.budget) { // what is doomed already makes room as well
        index_node * victim = disk.first([&](const index_node & leaf) { return &leaf != node; });
        has_room            = victim != nullptr;
        if (victim) {
            task.victims.push_back(give_up(*victim));
        }
    }
    if (has_room) {
        unstarted_bytes = bytes;
        return task;
    }
    for (const doomed_file & file : task.victims) {
        queue.push_removal(file);
    }
    take_from_disk(*node);
    settle_write(*node);
    index.release(*node);
    counters.write_drops++;
    return std::nullopt;
}

bool catalog::start_write() {
    const bool has_room = disk.bytes() + doomed_bytes <= disk.budget;
    unstarted_bytes     = has_room ? 0 : unstarted_bytes;
    return has_room;
}

void catalog::end_write(const disk_job & job, bool is_written) {
    index_node & node = *index.find(job.key); // pending, so it is there
    unstarted_bytes   = 0;
    if (is_written) {
        const std::vector<digest> replaces = std::move(node.pending->replaces);
        settle_write(node);
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
            settle_write(node);
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

std::vector<doomed_file> catalog::trim(size_t max_files) {
    std::vector<doomed_file> victims;
    uint64_t                 freed = 0;
    while (victims.size() < max_files && counters.index_complete && disk.bytes() + doomed_bytes - freed > disk.budget) {
        index_node * victim = disk.first([](const index_node &) { return true; });
        if (!victim) {
            break;
        }
        victims.push_back(give_up(*victim));
        freed += victims.back().bytes;
    }
    return victims;
}

void catalog::add_to_disk(index_node & node, uint64_t bytes) {
    disk.add(node, bytes);
    settle_pin(node);
    settle_orphan(node);
    settle_orphans_below(node);
}

void catalog::take_from_disk(index_node & node) {
    disk.remove(node);
    node.is_superseded = false;
    settle_pin(node);
    settle_orphans_below(node);
}

void catalog::settle_files(const digest * keys, size_t n_keys) {
    knows_files = true;
    removed.clear();
    for (size_t i = 0; i < n_keys; i++) {
        if (index_node * node = index.find(keys[i]); node && node->disk.present) { // else it was lost meanwhile
            settle_orphan(*node);
            if (node->kind == entry_kind::checkpoint) {
                dominate(*node);
            }
        }
    }
}

void catalog::settle_orphans_below(index_node & node) {
    for (index_node * child : node.children) {
        settle_orphan(*child);
    }
}

void catalog::settle_orphan(index_node & top) {
    std::vector<index_node *> todo = {&top};
    while (knows_files && !todo.empty()) {
        index_node & node = *todo.back();
        todo.pop_back();
        const bool is_orphan = node.position > 0 && (!node.parent->disk.present || node.parent->disk.is_orphan);
        if (node.disk.present && node.disk.is_orphan != is_orphan) {
            disk.change(node, [&] { node.disk.is_orphan = is_orphan; });
            todo.insert(todo.end(), node.children.begin(), node.children.end());
        }
    }
}

} // namespace atlas::memory
