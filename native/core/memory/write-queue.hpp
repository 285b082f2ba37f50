// What the writer has to do, in order. No locks.
#pragma once

#include "entry-index.hpp"

#include <chrono>
#include <list>
#include <map>
#include <optional>
#include <set>

namespace atlas::memory {

// An entry to write.
struct disk_job {
    digest                                key;
    std::chrono::steady_clock::time_point due = {};
};

// Only push() needs memory.
class write_queue {
  public:
    using clock = std::chrono::steady_clock;

    // delay: how long what may soon be superseded waits, unless the queue is half full.
    write_queue(uint64_t max_bytes, clock::duration delay) : max_bytes(max_bytes), delay(delay) {}

    // Makes the entry of the node pending. Returns false when that would be more than max_bytes; one that alone is larger
    // is taken while there is no other. Where it throws, nothing has changed.
    bool push(index_node & node, memory_entry_ptr entry);

    // Files that are no longer in the index but still take room. Before all writes, which may need the room, or be of
    // the same key.
    void push_removal(std::list<stored_file> files) { removals.splice(removals.begin(), files); }

    // The next file to remove, where that is to be done before the next write; none: an empty list.
    std::list<stored_file> pop_removal();

    // The next write; of those that wait only what is due, or with `at_once` any.
    std::optional<disk_job> pop(bool at_once);

    // Sets the write that was popped last aside, and takes at most so many back; returns false where there was none.
    void postpone() { postponed.insert(std::move(popped)); }
    bool resume(size_t max_writes);

    // Behind all others, so that one that fails holds up none: the node's pending write, which was popped last, or the
    // first of some removals, which is taken from them.
    void push_again(index_node & node);
    void push_again(std::list<stored_file> & files);

    // When the first of those that wait is due; nothing when none waits.
    std::optional<clock::time_point> next_due() const;

    // Ends the node's pending write, done or not needed any more, and gives back what it held.
    memory_entry_ptr settle(index_node & node);

    bool     is_half_full() const { return n_bytes > max_bytes / 2; }
    size_t   n_jobs() const { return removals.size() + late_removals.size() + jobs.size() + delayed.size(); }
    bool     has_job(bool at_once) const;
    uint64_t entries() const { return outstanding.size(); }
    uint64_t bytes() const { return n_bytes; }

    // Sequences count from 1, in the order of push(). Every write up to settled_through() has been settled.
    uint64_t last_sequence() const { return sequence; }
    uint64_t settled_through() const { return outstanding.empty() ? sequence : *outstanding.begin() - 1; }

  private:
    friend struct catalog_audit;

    friend struct catalog_audit;

    const uint64_t        max_bytes;
    const clock::duration delay;
    uint64_t              n_bytes    = 0;
    uint64_t              sequence   = 0;
    uint64_t              last_place = 0;
    std::set<uint64_t>    outstanding;

    std::list<stored_file> removals, late_removals; // late: those that failed, by their places

    std::map<uint64_t, disk_job>            jobs, delayed; // by their places; these follow the times of those that wait
    std::map<uint64_t, disk_job>            postponed; // as are these
    std::map<uint64_t, disk_job>::node_type popped; // for the same job, should it fail

    void end_delay();
};

// What an entry counts in memory, in bytes.
uint64_t memory_bytes(const memory_entry & entry);

} // namespace atlas::memory
