// What the writer has to do, in order. In RAM only, no locks; the store's mutex guards it.
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

    // delay: how long tails and checkpoints wait, which may soon be superseded, unless the queue is half full.
    write_queue(uint64_t max_bytes, clock::duration delay) : max_bytes(max_bytes), delay(delay) {}

    // Makes the entry of the node pending. Returns false when the queue would have more than max_bytes; an entry that
    // alone has more is taken while there is no other. Where it throws, nothing has changed.
    bool push(index_node & node, memory_entry_ptr entry);

    // Queues files that are no longer in the index but still take room. They are removed before all writes, which may
    // need the room, or be of the same key.
    void push_removal(std::list<stored_file> files) { removals.splice(removals.begin(), files); }

    // Takes the next file to remove out of the queue; an empty list where a write comes first, or there is none.
    std::list<stored_file> pop_removal();

    // Takes the next write out of the queue. A delayed one only when it is due, or with `at_once`.
    std::optional<disk_job> pop(bool at_once);

    // postpone() sets the write that was popped last aside; resume() queues at most max_writes such again, and returns
    // false where there was none.
    void postpone() { postponed.insert(std::move(popped)); }
    bool resume(size_t max_writes);

    // Queues a job that failed again, behind all others, so that it holds up none of them: the node's pending write,
    // which was popped last, or the first of `files`, which is moved out of that list.
    void push_again(index_node & node);
    void push_again(std::list<stored_file> & files);

    // When the first delayed write is due; nothing when there is none.
    std::optional<clock::time_point> next_due() const;

    // Ends the node's pending write, whether it was done or is not needed any more, and gives back its entry.
    memory_entry_ptr finish(index_node & node);

    bool     is_half_full() const { return n_bytes > max_bytes / 2; }
    size_t   n_jobs() const { return removals.size() + late_removals.size() + jobs.size() + delayed.size(); }
    bool     has_job(bool at_once) const;
    uint64_t entries() const { return outstanding.size(); }
    uint64_t bytes() const { return n_bytes; }

    // Sequences count from 1, in the order of push(). Every write up to finished_through() has been settled.
    uint64_t last_sequence() const { return sequence; }
    uint64_t finished_through() const { return outstanding.empty() ? sequence : *outstanding.begin() - 1; }

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

    std::map<uint64_t, disk_job>            jobs, delayed; // by place; delayed jobs are due in this order, too
    std::map<uint64_t, disk_job>            postponed; // by place
    std::map<uint64_t, disk_job>::node_type popped; // of the last job, so that queueing it again needs no memory

    void end_delay();
};

// Bytes that an entry counts in RAM.
uint64_t memory_bytes(const memory_entry & entry);

} // namespace atlas::memory
