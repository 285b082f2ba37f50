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
    node.pending = std::make_unique<pending_write>(pending_write{std::move(entry), ++sequence, {}});
    outstanding.insert(sequence);
    const disk_job job = {*node.key, false, sequence};
    if (delay > clock::duration::zero() && node.kind != entry_kind::block) {
        delayed.emplace_back(clock::now() + delay, job);
    } else {
        jobs.push_back(job);
    }
    if (is_half_full()) {
        end_delay();
    }
    return true;
}

void write_queue::end_delay() {
    for (const auto & [due, job] : delayed) {
        jobs.push_back(job);
    }
    delayed.clear();
}

bool write_queue::has_job(bool at_once) const {
    return !jobs.empty() || (!delayed.empty() && (at_once || delayed.front().first <= clock::now()));
}

std::optional<disk_job> write_queue::pop(bool at_once) {
    if (!has_job(at_once)) {
        return std::nullopt;
    }
    disk_job job;
    if (jobs.empty()) {
        job = delayed.front().second;
        delayed.pop_front();
    } else {
        job = jobs.front();
        jobs.pop_front();
    }
    return job;
}

std::optional<write_queue::clock::time_point> write_queue::next_due() const {
    return delayed.empty() ? std::nullopt : std::make_optional(delayed.front().first);
}

void write_queue::settle(index_node & node) {
    n_bytes -= memory_bytes(*node.pending->entry);
    outstanding.erase(node.pending->sequence);
    node.pending.reset();
}

} // namespace atlas::memory
