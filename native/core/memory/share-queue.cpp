#include "share-queue.hpp"

#include "write-queue.hpp"

#include <algorithm>
#include <new>
#include <utility>

namespace atlas::memory {

constexpr size_t MAX_USED     = 65536;
constexpr size_t MAX_REMOVALS = 65536;

bool share_queue::push(const digest & key, const digest & root, memory_entry_ptr entry) {
    const uint64_t bytes = memory_bytes(*entry);
    if (n_bytes > 0 && (n_bytes > budget || bytes > budget - n_bytes)) {
        n_drops++;
        return false;
    }
    const auto [place, is_new] = places.emplace(key, sequence + 1);
    if (!is_new) {
        return true; // it waits already
    }
    try {
        jobs.push_back({key, root, std::move(entry)});
    } catch (const std::bad_alloc &) {
        places.erase(place);
        throw;
    }
    n_bytes += bytes;
    sequence++;
    return true;
}

void share_queue::drop(const digest & key) {
    if (const auto found = places.find(key); found != places.end()) {
        jobs[found->second - finished_through() - 1].is_unwanted = true;
        places.erase(found);
    }
}

std::vector<share_job> share_queue::next(size_t max_jobs) const {
    return {jobs.begin(), jobs.begin() + (std::ptrdiff_t) std::min(max_jobs, jobs.size())};
}

std::vector<memory_entry_ptr> share_queue::pop(size_t n_jobs) {
    std::vector<memory_entry_ptr> entries;
    entries.reserve(n_jobs);
    for (; n_jobs > 0 && !jobs.empty(); n_jobs--) {
        n_bytes -= memory_bytes(*jobs.front().entry);
        if (!jobs.front().is_unwanted) {
            places.erase(jobs.front().key);
        }
        entries.push_back(std::move(jobs.front().entry));
        jobs.pop_front();
    }
    return entries;
}

void share_queue::push_removal(const digest & key, const digest & root) {
    if (removals.size() < MAX_REMOVALS) {
        removals.push_back({key, root, nullptr});
    }
}

std::vector<share_job> share_queue::take_removals() { return std::exchange(removals, {}); }

void share_queue::note_used(const digest & key, const digest & root, uint64_t position) {
    if (used.size() < MAX_USED) {
        used.emplace(key, used_at{root, position});
    }
}

uint64_t share_queue::overhead() const {
    constexpr uint64_t A_USED = 140, A_PLACE = 100;
    return places.size() * A_PLACE + jobs.size() * sizeof(share_job) + removals.size() * sizeof(share_job) +
           used.size() * A_USED;
}

} // namespace atlas::memory
