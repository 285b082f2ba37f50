#include "write-queue.hpp"

namespace atlas::memory {

uint64_t memory_bytes(const memory_entry & entry) {
    return entry.data.size() + entry.tokens.size() * sizeof(entry.tokens[0]);
}

bool write_queue::push(index_node & node, memory_entry_ptr entry) {
    const uint64_t bytes = memory_bytes(*entry);
    if (bytes > max_bytes - n_bytes) {
        return false;
    }
    n_bytes += bytes;
    node.pending = std::make_unique<pending_write>(pending_write{std::move(entry), ++sequence, {}});
    outstanding.insert(sequence);
    jobs.push_back({*node.key, false, sequence});
    return true;
}

std::optional<disk_job> write_queue::pop() {
    if (jobs.empty()) {
        return std::nullopt;
    }
    const disk_job job = jobs.front();
    jobs.pop_front();
    return job;
}

void write_queue::settle(index_node & node) {
    n_bytes -= memory_bytes(*node.pending->entry);
    outstanding.erase(node.pending->sequence);
    node.pending.reset();
}

} // namespace atlas::memory
