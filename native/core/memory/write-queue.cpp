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
    auto pending = std::make_unique<pending_write>(pending_write{std::move(entry), sequence + 1, last_place + 1, {}});
    const auto place = outstanding.insert(outstanding.end(), sequence + 1);
    try {
        if (delay > clock::duration::zero() && node.kind != entry_kind::block) {
            delayed.emplace(last_place + 1, disk_job{*node.key, clock::now() + delay});
        } else {
            jobs.emplace(last_place + 1, disk_job{*node.key});
        }
    } catch (...) {
        outstanding.erase(place);
        throw;
    }
    sequence++;
    last_place++;
    n_bytes += bytes;
    node.pending = std::move(pending);
    if (is_half_full()) {
        end_delay();
    }
    return true;
}

void write_queue::push_again(index_node & node) {
    node.pending->place = ++last_place;
    popped.key()        = last_place;
    popped.mapped()     = disk_job{*node.key};
    jobs.insert(std::move(popped));
}

void write_queue::push_again(std::list<stored_file> & files) {
    files.front().place = ++last_place;
    late_removals.splice(late_removals.end(), files, files.begin());
}

void write_queue::end_delay() { jobs.merge(delayed); }

bool write_queue::has_job(bool at_once) const {
    return !removals.empty() || !late_removals.empty() || !jobs.empty() ||
           (!delayed.empty() && (at_once || delayed.begin()->second.due <= clock::now()));
}

std::list<stored_file> write_queue::pop_removal() {
    std::list<stored_file> next;
    auto &                 from = removals.empty() ? late_removals : removals;
    if (!from.empty() && (jobs.empty() || from.front().place < jobs.begin()->first)) {
        next.splice(next.begin(), from, from.begin());
    }
    return next;
}

std::optional<disk_job> write_queue::pop(bool at_once) {
    auto & from = jobs.empty() ? delayed : jobs;
    if (from.empty() || (jobs.empty() && !at_once && delayed.begin()->second.due > clock::now())) {
        return std::nullopt;
    }
    popped = from.extract(from.begin());
    return popped.mapped();
}

bool write_queue::resume(size_t max_writes) {
    const bool is_any = !postponed.empty();
    for (; max_writes > 0 && !postponed.empty(); max_writes--) {
        jobs.insert(postponed.extract(postponed.begin()));
    }
    return is_any;
}

std::optional<write_queue::clock::time_point> write_queue::next_due() const {
    return delayed.empty() ? std::nullopt : std::make_optional(delayed.begin()->second.due);
}

memory_entry_ptr write_queue::finish(index_node & node) {
    const std::unique_ptr<pending_write> ended = std::move(node.pending);
    n_bytes -= memory_bytes(*ended->entry);
    outstanding.erase(ended->sequence);
    jobs.erase(ended->place);
    delayed.erase(ended->place);
    postponed.erase(ended->place);
    return std::move(ended->entry);
}

} // namespace atlas::memory
