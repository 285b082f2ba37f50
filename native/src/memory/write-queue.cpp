#include "write-queue.hpp"

namespace atlas::memory {

uint64_t memory_bytes(const memory_entry & entry) {
    return entry.data.size() + entry.tokens.size() * sizeof(entry.tokens[0]);
}

bool write_queue::push(index_node & node, memory_entry_ptr entry) {
    const uint64_t bytes = memory_bytes(*entry);
    if (n_bytes > 0 && (n_bytes > max_bytes || bytes > max_bytes - n_bytes)) {
        end_delay();
        return false;
    }
    n_bytes += bytes;
    node.pending = std::make_unique<pending_write>(pending_write{std::move(entry), ++sequence, ++last_place, {}});
    outstanding.insert(sequence);
    if (delay > clock::duration::zero() && node.kind != entry_kind::block) {
        delayed.emplace(last_place, disk_job{*node.key, false, 0, clock::now() + delay});
    } else {
        jobs.emplace(last_place, disk_job{*node.key});
    }
    if (is_half_full()) {
        end_delay();
    }
    return true;
}

void write_queue::push_again(index_node & node) {
    node.pending->place = ++last_place;
    jobs.emplace(last_place, disk_job{*node.key});
}

void write_queue::end_delay() { jobs.merge(delayed); }

bool write_queue::has_job(bool at_once) const {
    return !removals.empty() || !jobs.empty() ||
           (!delayed.empty() && (at_once || delayed.begin()->second.due <= clock::now()));
}

std::optional<disk_job> write_queue::pop(bool at_once) {
    if (!has_job(at_once)) {
        return std::nullopt;
    }
    if (!removals.empty()) {
        const disk_job job = removals.front();
        removals.pop_front();
        return job;
    }
    auto & from = jobs.empty() ? delayed : jobs;
    return from.extract(from.begin()).mapped();
}

std::optional<write_queue::clock::time_point> write_queue::next_due() const {
    return delayed.empty() ? std::nullopt : std::make_optional(delayed.begin()->second.due);
}

memory_entry_ptr write_queue::settle(index_node & node) {
    const std::unique_ptr<pending_write> ended = std::move(node.pending);
    n_bytes -= memory_bytes(*ended->entry);
    outstanding.erase(ended->sequence);
    jobs.erase(ended->place);
    delayed.erase(ended->place);
    return std::move(ended->entry);
}

} // namespace atlas::memory
