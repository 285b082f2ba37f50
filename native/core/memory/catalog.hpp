// What the store knows and decides: which entry is in which layer, what leaves it, what is written and what is found.
// In memory only: nothing here opens a file or takes a lock; the store's mutex guards all of it.
#pragma once

#include "entry-file.hpp"
#include "event-log.hpp"
#include "layer.hpp"
#include "lease-budget.hpp"
#include "session-index.hpp"
#include "write-queue.hpp"

#include <list>
#include <unordered_set>
#include <utility>

namespace atlas::memory {

// One entry that a match needs.
struct match_piece {
    digest           key, parent;
    entry_kind       kind;
    memory_tokens    tokens; // empty where the entry is given
    size_t           begin;  // tokens before it
    memory_entry_ptr entry; // leased; null: it has to be read from disk
    uint64_t         bytes;    // of its file, where it has to be read
    bool             was_read     = false;
    bool             is_first_use = false; // of what was preloaded: its file has to be marked
};

// One that waits in RAM to be adopted, leased, and as what it was put.
struct held_entry {
    memory_entry_ptr entry;
    memory_access    access;
};

enum class preload_step { go_on, skip, end };

struct match_plan {
    size_t                     n_tokens = 0;
    std::vector<match_piece>   blocks;
    std::optional<match_piece> checkpoint;
    size_t                     n_beyond = 0; // tokens behind n_tokens that the checkpoint has

    size_t n_kept = 0, n_used = 0; // how far use() has come

    uint64_t bytes_to_read() const;
};

// A search for the longest prefix of some tokens, which outlive it. Goes on where it was, also when the catalog has
// changed meanwhile: what it found is leased, or is on disk and may be missing when it is read.
struct prefix_search {
    digest          root            = {};
    const int32_t * tokens          = nullptr;
    size_t          n_tokens        = 0;
    bool            need_checkpoint = false;
    int             max_layer       = 0;
    size_t          rewind          = 0; // tokens that a checkpoint can be taken back by

    match_plan plan; // once it has ended there may be more blocks than its n_tokens need

    bool                  is_walked = false; // all blocks were found; then the checkpoint is looked for
    std::optional<size_t> n_behind; // blocks behind which it is looked for next

    bool may_use(const index_node & node) const;
};

// One file to write, once the victims are gone.
struct write_task {
    digest                 key;
    file_header            header;
    memory_entry_ptr       entry;
    std::list<stored_file> victims;
};

// Where a member throws std::bad_alloc, no more than what it was to do is missing: all members work as before.
class catalog {
  public:
    explicit catalog(const memory_options & options);

    memory_stats counters;        // what is counted since start; the present sizes are filled in by stats()
    bool         has_disk = true; // layer 2 is wanted
    bool         knows_sessions; // of the last run; else nothing is given up on disk

    // State that no layer has any more; to be freed where no lock is held, as that takes long.
    std::vector<memory_entry_ptr> take_released() { return std::exchange(released, {}); }

    memory_stats stats() const;
    bool         contains(const digest & key) const;

    // As memory_store::put().
    void put(const memory_entry_ptr & entry, const digest & key, const digest & parent,
             const std::optional<digest> & supersedes, const memory_access & access);

    // Searches on for the longest prefix that can be rebuilt if all that is to be read turns out to be there, among about
    // max_entries; returns false when it has it.
    bool choose(prefix_search & search, size_t max_entries);
    // Keeps in RAM what was read for a plan, and counts what it found as used, some max_entries of it; returns false when
    // that is done. `reading` counts what was read; what layer 1 has no room for counts until nobody leases it.
    bool use(match_plan & plan, lease_budget::hold & reading, const memory_access & access, size_t max_entries);

    const std::shared_ptr<lease_budget> leases;

    // What is to be preloaded next: of one conversation of these roots what only the disk has, its beginning first. Goes
    // from the last in the order of eviction towards the first, and looks at about max_nodes at a time, so that there may
    // be nothing among these; returns nothing when all were seen.
    std::optional<std::vector<match_piece>> next_to_preload(const std::set<digest> & roots, size_t max_nodes,
                                                            std::optional<layer::place> & cursor);
    // Before it is read, and again before preload(), which keeps in RAM what was read: whether that is still wanted, and
    // layer 1 would not hold more than max_bytes then.
    preload_step next_step(const match_piece & piece, uint64_t max_bytes);
    void         preload(const match_piece & piece);

    // For adopt(): at most so many children of a key that are in RAM; and the end of one.
    std::vector<held_entry> held_below(const digest & parent, size_t max_entries) const;
    void                    drop_held(const digest & key);

    // Tells of a file: found by the indexer, gone, or damaged (which removes it). last_use: its time, in nanoseconds.
    void add_file(const file_header & header, uint64_t bytes, int64_t last_use);
    void lose_file(const digest & key);
    void remove_damaged_file(const digest & key);

    // Once all files are known: finds which of these are orphans, from then on as they come and go, and which checkpoints
    // are on the way to others.
    void settle_files(const digest * keys, size_t n_keys);

    // As the members of memory_store of the same name.
    event_log     events;
    session_index sessions;
    void          set_priority(int in_layer, const digest & key, int64_t now, int64_t priority);
    void          add_sizes(const digest * keys, size_t n_keys, memory_session & to) const;
    uint64_t      unpinned_bytes(const digest * keys, size_t n_keys) const;
    // Pins a session whose unpinned_bytes() are these; returns why not, or nothing.
    std::string pin(const std::string & id, uint64_t more_bytes);

    // Lets go of the last max_entries entries of a session that was taken; with is_unwanted gives them up, unless
    // another session or conversation builds upon them: then they and those before them stay, and is_unwanted becomes false.
    // Returns the bytes that were given up.
    uint64_t let_go(session & taken, bool & is_unwanted, size_t max_entries);

    // Sessions that were deleted before all files were known; their entries go once they are.
    std::vector<session> condemned;

    // For the writer. begin_write() makes room and returns nothing when the write is not needed or has no room.
    write_queue               queue;
    std::optional<write_task> begin_write(const disk_job & job);
    // Whether what is on disk may be given up: all of it is known, and what sessions it belongs to.
    bool may_evict() const { return counters.index_complete && knows_sessions; }
    // Queues again at most so many writes that had no room when nothing could be given up. Returns false where none waits.
    bool resume_writes(size_t max_writes);
    // Whether all that had to go for the file is gone; from then on it is counted.
    bool start_write();
    void end_write(const disk_job & job, bool is_written);
    // Gives up at most so many entries that are over a budget, the disk's or the index's. Returns the files to remove.
    std::list<stored_file> trim(size_t max_entries);
    uint64_t               index_bytes() const;
    bool                   is_index_full() const { return index_bytes() > options.index_bytes; }
    // Whether the file is still to be removed: not where it was written anew meanwhile, which replaced it.
    bool must_remove(const stored_file & file) const;
    void end_removal(const stored_file & file) { doomed_bytes -= file.bytes; }

  private:
    friend struct catalog_audit;

    static constexpr int64_t CLOCK_START = 1ll << ATLAS_PRIORITY_BITS; // later than the time of any file

    const memory_options options;
    entry_index          index;
    layer                ram, disk;
    int64_t              clock           = CLOCK_START; // counts touches
    uint64_t             doomed_bytes    = 0; // of files that are to be removed
    uint64_t             unstarted_bytes = 0; // of a file that waits until its victims are removed
    bool                 knows_files     = false; // so that what has no parent on disk is known to be an orphan

    uint64_t pinned_bytes  = 0;     // each entry once, however many layers and sessions have it
    uint64_t refused_bytes = 0;     // of pinned sessions as well, but beyond the limit

    uint64_t sessions_in_ram = 0;

    std::vector<memory_entry_ptr> released;

    // What was removed while the indexer may still have its header.
    std::unordered_set<digest, digest_hash> removed;

    void         touch(index_node & node, const memory_access & access, uint64_t bytes);
    index_node & add(const digest & key, const digest & parent, entry_kind kind, const memory_tokens & tokens);
    // Changes what the order of both layers depends on.
    template <typename F> void rerank(index_node & node, F edit) {
        ram.change(node, [&] { disk.change(node, edit); });
    }
    bool     may_supersede(const digest & key, const memory_access & access) const;
    void     settle_holds(const digest & key, const holds & now);
    void     settle_pin(index_node & top);
    uint64_t pinned_limit() const;
    uint64_t forget(index_node & node);
    void     settle_begun(index_node & node);
    void     count_eviction(const index_node & node, int from_layer, eviction_reason why);
    uint64_t size_of(const index_node & node) const;
    void     dominate(index_node & checkpoint);
    bool     keep_in_ram(index_node & node, const memory_entry_ptr & entry);
    void     evict_from_ram(index_node & victim);
    void     drop_from_ram(index_node & node) noexcept;
    void     let_release(memory_entry_ptr entry) noexcept;
    void     write_later(index_node & node, const memory_entry_ptr & entry, const memory_access & access);
    void     settle_write(index_node & node);
    void     supersede(index_node & old, index_node & by);
    void     remove_replaced(const digest & key);
    void     remove_later(index_node & node, eviction_reason why);
    void     add_to_disk(index_node & node, uint64_t bytes);
    void     take_from_disk(index_node & node);

    std::list<stored_file> doom(index_node & node, eviction_reason why);
    std::list<stored_file> give_up(index_node & victim);
    bool                   leave_index(std::list<stored_file> & files);

    void             prove_position(index_node & node, uint64_t position);
    void             settle_orphan(index_node & node);
    void             settle_orphans_below(index_node & node);
    match_piece      piece_of(index_node & node, size_t begin) const;
    memory_entry_ptr lease(index_node & node) const;
    void             settle_lease(index_node & node, bool was_in_ram) noexcept;
    index_node *     node_behind(const prefix_search & search, size_t n_blocks);
    void             walk(prefix_search & search);
    void             look_beyond(prefix_search & search, const index_node & last, size_t begin);
    void             look_for_checkpoint(prefix_search & search);
    void             keep_read(match_piece & piece, lease_budget::hold & reading);
    void             use_piece(match_piece & piece, const memory_access & access);

    // Forgets the entry of a key at its end, if it is stored nowhere then.
    struct release_guard {
        entry_index & index;
        const digest  key;
        ~release_guard() {
            if (index_node * node = index.find(key)) {
                index.release(*node);
            }
        }
    };
};

} // namespace atlas::memory
