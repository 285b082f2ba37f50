// What the store knows and decides: which entry is in which layer, what leaves it, what is written and what is found.
// In memory only: nothing here opens a file or takes a lock; the store's mutex guards all of it.
#pragma once

#include "entry-file.hpp"
#include "event-log.hpp"
#include "layer.hpp"
#include "session-index.hpp"
#include "write-queue.hpp"

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

enum class preload_step { go_on, skip, end };

struct match_plan {
    size_t                     n_tokens = 0;
    std::vector<match_piece>   blocks;
    std::optional<match_piece> checkpoint;

    uint64_t bytes_to_read() const;
};

// One file to write, once the victims are gone.
struct write_task {
    digest                   key;
    file_header              header;
    memory_entry_ptr         entry;
    std::vector<doomed_file> victims;
};

class catalog {
  public:
    explicit catalog(const memory_options & options);

    memory_stats counters;        // what is counted since start; the present sizes are filled in by stats()
    bool         has_disk = true; // layer 2 is wanted

    // State that no layer has any more; to be freed where no lock is held, as that takes long.
    std::vector<memory_entry_ptr> take_released() { return std::exchange(released, {}); }

    memory_stats stats() const;
    bool         contains(const digest & key) const;

    // As memory_store::put().
    void put(const memory_entry_ptr & entry, const digest & key, const digest & parent,
             const std::optional<digest> & supersedes, const memory_access & access);

    // The longest prefix that can be rebuilt if all that is to be read turns out to be there.
    match_plan choose(const digest & root, const int32_t * tokens, size_t n_tokens, bool need_checkpoint,
                      int max_layer);
    // Counts a match as used and keeps in RAM what was read for it.
    void use(match_plan & plan, const memory_access & access);

    // What is to be preloaded next: of one conversation of these roots what only the disk has, its beginning first. Goes
    // from the last in the order of eviction towards the first, and looks at about max_nodes at a time, so that there may
    // be nothing among these; returns nothing when all were seen.
    std::optional<std::vector<match_piece>> next_to_preload(const std::set<digest> & roots, size_t max_nodes,
                                                            std::optional<layer::place> & cursor);
    // Before it is read, and again before preload(), which keeps in RAM what was read: whether that is still wanted, and
    // layer 1 would not hold more than max_bytes then.
    preload_step next_step(const match_piece & piece, uint64_t max_bytes);
    void         preload(const match_piece & piece);

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
    // Whether all that had to go for the file is gone; from then on it is counted.
    bool start_write();
    void end_write(const disk_job & job, bool is_written);
    // At most so many files that are over the budget.
    std::vector<doomed_file> trim(size_t max_files);
    void                     end_removal(const doomed_file & file);

  private:
    static constexpr int64_t CLOCK_START = 1ll << 62; // later than the time of any file

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

    void             touch(index_node & node, const memory_access & access, uint64_t bytes);
    index_node &     add(const digest & key, const digest & parent, entry_kind kind, const memory_tokens & tokens);
    void             rerank(index_node & node, const std::function<void()> & edit);
    bool             may_supersede(const digest & key, const memory_access & access) const;
    void             settle_holds(const digest & key, const holds & now);
    void             settle_pin(index_node & top);
    uint64_t         pinned_limit() const;
    uint64_t         forget(index_node & node);
    void             settle_begun(index_node & node);
    void             count_eviction(const index_node & node, int from_layer, eviction_reason why);
    uint64_t         size_of(const index_node & node) const;
    void             dominate(index_node & checkpoint);
    bool             keep_in_ram(index_node & node, const memory_entry_ptr & entry);
    void             drop_from_ram(index_node & node);
    void             write_later(index_node & node, const memory_entry_ptr & entry);
    void             settle_write(index_node & node);
    void             supersede(index_node & old, index_node & by);
    void             remove_replaced(const digest & key);
    void             remove_later(index_node & node, eviction_reason why);
    doomed_file      doom(index_node & node, eviction_reason why);
    doomed_file      give_up(index_node & victim);
    void             add_to_disk(index_node & node, uint64_t bytes);
    void             take_from_disk(index_node & node);
    void             settle_orphan(index_node & node);
    void             settle_orphans_below(index_node & node);
    match_piece      piece_of(index_node & node, size_t begin) const;
    memory_entry_ptr lease(index_node & node) const;
};

} // namespace atlas::memory
