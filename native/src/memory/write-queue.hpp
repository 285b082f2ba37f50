// What the writer has to do, in order. No locks.
#pragma once

#include "entry-index.hpp"

#include <chrono>
#include <deque>
#include <map>
#include <optional>
#include <set>

namespace atlas::memory {

// A file that is no longer in the index but still takes room.
struct doomed_file {
    digest   key;
    uint64_t bytes;
};

struct disk_job {
    digest                                key;
    bool                                  is_removal = false;
    uint64_t                              file_bytes = 0; // of the file to remove
    std::chrono::steady_clock::time_point due        = {};
};

class write_queue {
  public:
    using clock = std::chrono::steady_clock;

    // delay: how long what may soon be superseded waits, unless the queue is half full.
    write_queue(uint64_t max_bytes, clock::duration delay) : max_bytes(max_bytes), delay(delay) {}

    // Makes the entry of the node pending. Returns false when that would be more than max_bytes; one that alone is larger
    // is taken while there is no other.
    bool push(index_node & node, memory_entry_ptr entry);

    // Before all writes, which may need the room, or be of the same key.
    void push_removal(const doomed_file & file) { removals.push_front({file.key, true, file.bytes}); }

    // The next job; of those that wait only what is due, or with `at_once` any.
    std::optional<disk_job> pop(bool at_once);

    // Behind all others, so that one that fails holds up none: the node's pending write, or a removal.
    void push_again(index_node & node);
    void push_again(const doomed_file & file) { jobs.emplace(++last_place, disk_job{file.key, true, file.bytes}); }

    // When the first of those that wait is due; nothing when none waits.
    std::optional<clock::time_point> next_due() const;

    // Ends the node's pending write, done or not needed any more, and gives back what it held.
    memory_entry_ptr settle(index_node & node);

    bool     is_half_full() const { return n_bytes > max_bytes / 2; }
    size_t   n_jobs() const { return removals.size() + jobs.size() + delayed.size(); }
    bool     has_job(bool at_once) const;
    uint64_t entries() const { return outstanding.size(); }
    uint64_t bytes() const { return n_bytes; }

    // Sequences count from 1, in the order of push(). Every write up to settled_through() has been settled.
    uint64_t last_sequence() const { return sequence; }
    uint64_t settled_through() const { return outstanding.empty() ? sequence : *outstanding.begin() - 1; }

  private:
    const uint64_t        max_bytes;
    const clock::duration delay;
    uint64_t              n_bytes    = 0;
    uint64_t              sequence   = 0;
    uint64_t              last_place = 0;
    std::set<uint64_t>    outstanding;
    std::deque<disk_job>  removals;

    std::map<uint64_t, disk_job> jobs, delayed; // by their places; these follow the times of those that wait

    void end_delay();
};

// What an entry counts in memory, in bytes.
uint64_t memory_bytes(const memory_entry & entry);

} // namespace atlas::memory
