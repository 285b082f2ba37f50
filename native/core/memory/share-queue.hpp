// Which entries are to be sent to a tier beyond this machine, in which order, and which were used that it has. In RAM only,
// no locks; the store's mutex guards it.
#pragma once

#include "atlas-memory.hpp"
#include "digest.hpp"

#include <deque>
#include <unordered_map>
#include <utility>
#include <vector>

namespace atlas::memory {

struct share_job {
    digest           key, root;
    memory_entry_ptr entry;
    bool             is_unwanted = false; // it was deleted or superseded, and is not to be sent
};

// Entries that the tier has and that were used here.
struct used_at {
    digest   root;
    uint64_t position; // tokens before it
};
using used_entries = std::unordered_map<digest, used_at, digest_hash>;

class share_queue {
  public:
    explicit share_queue(const shared_options & options) : options(options), budget(options.queue_bytes) {}

    const shared_options options;

    // Of what waits, in bytes.
    void set_budget(uint64_t bytes) { budget = bytes; }

    // Queues an entry behind all others, where it does not wait already. Returns false, and counts that, where the queue would have more than its budget; an
    // entry that alone has more is taken while there is no other. Where it throws, nothing has changed.
    bool push(const digest & key, const digest & root, memory_entry_ptr entry);

    // Has the entry of a key not be sent, if it still waits.
    void drop(const digest & key);

    // The tier is used from now on, or not any more, with nothing of what it was told before: what waits is to be dropped.
    void open() {
        n_lives = (uint8_t) (n_lives % UINT8_MAX + 1);
        is_on   = true;
    }
    void    close() { is_on = false; }
    bool    is_open() const { return is_on; }
    uint8_t life() const { return n_lives; } // never 0 once it was opened

    // The next jobs in order, at most so many. They count until pop() takes as many away.
    std::vector<share_job> next(size_t max_jobs) const;
    // Takes the first jobs away. Their entries are to be freed without the lock.
    std::vector<memory_entry_ptr> pop(size_t n_jobs);

    // Notes a key to be removed from the tier.
    void                   push_removal(const digest & key, const digest & root);
    std::vector<share_job> take_removals();
    bool                   has_removals() const { return !removals.empty(); }

    // Notes that an entry was used which the tier has. Beyond so many, those that are used first count.
    void note_used(const digest & key, const digest & root, uint64_t position);
    // Takes those noted since the last call. To be put in order, and freed, without the lock: it may be many.
    used_entries take_used() { return std::exchange(used, {}); }

    bool     is_half_full() const { return n_bytes > budget / 2; }
    uint64_t entries() const { return jobs.size(); }
    uint64_t bytes() const { return n_bytes; }
    uint64_t drops() const { return n_drops; }
    void     count_drop() { n_drops++; }

    // Jobs count from 1, in the order of push(). All up to finished_through() were sent, or are not needed any more.
    uint64_t last_sequence() const { return sequence; }
    uint64_t finished_through() const { return sequence - jobs.size(); }
    uint64_t flush_target = 0; // up to which flush_shared() waits

    // RAM that it takes besides the entries.
    uint64_t overhead() const;

  private:
    std::deque<share_job>  jobs;
    std::vector<share_job> removals;
    used_entries           used;
    uint64_t               budget;
    bool                   is_on   = false;
    uint8_t                n_lives = 0;

    std::unordered_map<digest, uint64_t, digest_hash> places; // sequences of those that wait and are to be sent

    uint64_t n_bytes = 0, n_drops = 0, sequence = 0;
};

} // namespace atlas::memory
