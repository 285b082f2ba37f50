// The catalog knows which entry is in which tier, and decides what leaves a tier, what is written and what a lookup
// finds. It opens no file and takes no lock but that of lease_budget, which counts. The store's mutex guards all of it:
// HTTP threads, the token loop, and the store's own threads call it with that.
#pragma once

#include "block-log.hpp"
#include "entry-file.hpp"
#include "event-log.hpp"
#include "lease-budget.hpp"
#include "session-index.hpp"
#include "share-queue.hpp"
#include "tier-books.hpp"
#include "write-queue.hpp"

#include <array>
#include <list>
#include <optional>
#include <unordered_set>
#include <utility>

namespace atlas::memory {

// One entry that a match needs.
struct match_piece {
    digest           key, parent;
    entry_kind       kind;
    memory_tokens    tokens; // empty where the entry is given
    size_t           begin; // tokens before it
    memory_entry_ptr entry; // leased; null: it has to be read from disk
    uint64_t         bytes; // of its file, where it has to be read
    bool             was_read     = false;
    bool             is_first_use = false; // it was preloaded and never used before: its file has to get a new time
};

// An entry that waits in RAM to be adopted, leased, with the access by which it was put.
struct held_entry {
    memory_entry_ptr entry;
    memory_access    access;
};

// A look at all that is below a root. It is done in steps, and ends early where the entry at which it stopped has gone.
struct survey {
    digest root            = {};
    size_t n_beginnings    = 0;
    size_t max_tokens      = 0;
    bool   need_checkpoint = false;

    kept_below                              found;
    std::optional<digest>                   cursor; // looked at last
    std::vector<std::pair<int64_t, digest>> latest; // ends of beginnings, by their last use
};

enum class preload_step { go_on, skip, end };

struct match_plan {
    size_t                     n_tokens = 0;
    std::vector<match_piece>   blocks;
    std::optional<match_piece> checkpoint;
    size_t                     n_beyond   = 0; // tokens that the checkpoint has beyond n_tokens
    size_t                     n_known    = 0; // as in memory_match
    bool                       has_parted = false;

    size_t n_kept = 0, n_used = 0; // how many pieces use() has kept in RAM, and counted as used

    uint64_t bytes_to_read() const;
};

// A search for the longest prefix of some tokens, which outlive it. It is done in steps, and the catalog may change
// between two of them: what was found in RAM is leased, and what was found on disk may be missing when it is read.
struct prefix_search {
    digest          root            = {};
    const int32_t * tokens          = nullptr;
    size_t          n_tokens        = 0;
    bool            need_checkpoint = false;
    int             max_tier        = 0;
    size_t          rewind          = 0; // tokens by which a checkpoint can be rolled back

    match_plan plan; // once the search has ended it may have more blocks than its n_tokens need

    bool                  is_walked = false; // all blocks were found; the search for the checkpoint follows
    std::optional<size_t> n_behind; // the next look for it is behind so many blocks; nothing: the search is over

    bool may_use(const index_node & node) const;
};

// One file to write, once the files of the victims are removed.
struct write_task {
    digest                 key;
    file_header            header;
    memory_entry_ptr       entry;
    std::list<stored_file> victims;
};

// Where a member throws std::bad_alloc, it has not done all that it should, but the catalog is whole: all members work.
class catalog {
  public:
    explicit catalog(const memory_options & options);

    memory_stats counters; // what is counted since start; the present sizes are filled in by stats()
    bool         has_disk = true; // tier 2 is wanted
    bool         knows_sessions; // the sessions of the last run are known; before that nothing is evicted on disk

    // State that no tier has any more. Freeing takes long, so the caller does it without the lock.
    std::vector<memory_entry_ptr> take_released() { return std::exchange(released, {}); }

    memory_stats stats() const;
    bool         contains(const digest & key) const;

    // As memory_store::put().
    void put(const memory_entry_ptr & entry, const digest & key, const digest & parent,
             const std::optional<digest> & supersedes, const memory_access & access);

    // Does a step of a search for the longest prefix that can be rebuilt, taking it that all files will be there; looks
    // at about max_entries. Returns false when the search is over.
    bool choose(prefix_search & search, size_t max_entries);
    // Does a step of keeping in RAM what was read for a plan, and of counting the plan's entries as used, for about
    // max_entries. Returns false when all is done. `reading` has the bytes that were read; those that tier 1 has no
    // room for stay in the budget until nobody leases the entry.
    bool use(match_plan & plan, lease_budget::hold & reading, const memory_access & access, size_t max_entries);

    const std::shared_ptr<lease_budget> leases;

    // Gives the entries to preload next: those of one conversation of these roots that only the disk has, its beginning
    // first. Conversations come from the last in the order of eviction to the first. One call looks at about max_nodes,
    // so that the list may be empty; returns nothing when all were seen.
    std::optional<std::vector<match_piece>> next_to_preload(const std::set<digest> & roots, size_t max_nodes,
                                                            std::optional<tier_books::place> & cursor);
    // Whether the piece still is to be preloaded, and tier 1 would not have more than max_bytes with it: to be asked
    // before it is read, and again before preload(), which keeps in RAM what was read.
    preload_step next_step(const match_piece & piece, uint64_t max_bytes);
    void         preload(const match_piece & piece);

    bool has_any_below(const digest & root) const { return index.find(root) != nullptr; }

    // Looks at some max_entries more. Returns false when all were seen: then the beginnings are filled in.
    bool look_on(survey & survey, size_t max_entries);

    // For adopt(): at most max_entries children of a key that are in RAM. drop_held() drops one of them.
    std::vector<held_entry> held_below(const digest & parent, size_t max_entries) const;
    void                    drop_held(const digest & key);

    // Tell that the indexer found a file (last_use: the file's time, in nanoseconds), that a file is gone, or that it
    // is damaged, which removes it.
    void add_file(const file_header & header, uint64_t bytes, int64_t last_use);
    void lose_file(const digest & key);
    void remove_damaged_file(const digest & key);

    // Called once all files were found, for all of them: marks those that are orphans, and checkpoints on the way to
    // others. From then on orphans are marked as files come and go.
    void update_files(const digest * keys, size_t n_keys);

    // As memory_store::take_block_changes(), in steps: returns false when it is done.
    block_log blocks;
    bool      tell_blocks(block_changes & to, size_t max_changes, size_t max_entries) {
        return blocks.tell(to, max_changes, max_entries, index);
    }

    // As the members of memory_store of the same name.
    event_log     events;
    session_index sessions;
    void          set_priority(int in_tier, const digest & key, int64_t now, int64_t priority);
    void          add_sizes(const digest * keys, size_t n_keys, memory_session & to) const;
    uint64_t      unpinned_bytes(const digest * keys, size_t n_keys) const;
    // Pins a session whose unpinned_bytes() are more_bytes. Returns why it was not pinned, or an empty text.
    std::string pin(const std::string & id, uint64_t more_bytes);

    // Drops the references of a session that was taken to its last max_entries entries. With is_unwanted it deletes
    // these entries, up to the first that another session or conversation continues: that and those before it stay, and
    // is_unwanted becomes false. Returns the bytes that were deleted.
    uint64_t unref(session & taken, bool & is_unwanted, size_t max_entries);

    // Sessions that were deleted before all files were known. Their entries are deleted once all are.
    std::vector<session> awaiting_delete;

    // For the writer. begin_write() makes room and returns nothing when the write is not needed or has no room.
    write_queue               queue;
    std::optional<write_task> begin_write(const disk_job & job);
    // Whether entries on disk may be evicted: all files are known, and to which sessions they belong.
    bool may_evict() const { return counters.index_complete && knows_sessions; }
    // Queues at most max_writes again that found no room while nothing could be evicted. Returns false where none
    // waits.
    bool resume_writes(size_t max_writes);
    // Whether the files of all victims are removed, so that the new file may be written; from then on it counts.
    bool start_write();
    void end_write(const disk_job & job, bool is_written);
    // Tells that the file of the write that is about to end is there; events.durable() then says that it stays.
    void note_written(const disk_job & job, uint64_t bytes, double seconds);
    // Evicts at most max_entries that are over a budget, the disk's or the index's. Returns the files to remove.
    std::list<stored_file> trim(size_t max_entries);
    uint64_t               index_bytes() const;
    bool                   is_index_full() const { return index_bytes() > options.index_bytes; }
    // For tiers from 3. Null where there never was one of that number.
    share_queue *       sharing(int tier) { return slot_of(sharing_of, tier); }
    const share_queue * sharing(int tier) const { return slot_of(sharing_of, tier); }
    // The queue, empty, of a tier that is used from now on.
    share_queue & open_sharing(int tier, const shared_options & options);
    void          close_sharing(int tier);
    // Keeps what was fetched from one, as the entry of these keys. Returns whether a lookup can find it now.
    bool add_fetched(int tier, const memory_entry_ptr & entry, const digest & key, const digest & parent,
                     const memory_access & access);
    // Tells whether a tier has an entry, which then does not wait for it any more.
    void note_shared(int tier, const digest & key, bool has);
    // Queues an entry again that a tier has lost.
    void share_again(int tier, const digest & key);
    // Has a value be removed from a tier that is not what it should be.
    void remove_shared(int tier, const digest & key, const digest & root);

    // Whether the file still is to be removed: not where an entry of the same key was written meanwhile, which replaced
    // it.
    bool must_remove(const stored_file & file) const;
    void end_removal(const stored_file & file) { bytes_to_delete -= file.bytes; }

  private:
    friend struct catalog_audit;

    static constexpr int64_t CLOCK_START = 1ll << ATLAS_PRIORITY_BITS; // later than the time of any file

    const memory_options options;
    entry_index          index;
    tier_books           ram, disk;
    int64_t              clock           = CLOCK_START; // counts touches
    uint64_t             bytes_to_delete = 0; // of files that are to be removed
    uint64_t             unstarted_bytes = 0; // of a file that waits until the files of its victims are removed
    bool                 knows_files     = false; // all files are known: one without its parent on disk is an orphan

    uint64_t pinned_bytes  = 0; // an entry counts once, however many tiers and sessions have it
    uint64_t refused_bytes = 0; // of entries of pinned sessions that are not pinned, being beyond the limit

    uint64_t sessions_in_ram = 0;

    std::array<std::optional<share_queue>, N_LINKED_TIERS> sharing_of;
    size_t                                                 n_sharing = 0; // tiers from 3 that are used

    template <typename T> static auto slot_of(T & of, int tier) -> decltype(&*of[0]) {
        auto & slot = of.at((size_t) (tier - SHARED_TIER));
        return slot ? &*slot : nullptr;
    }

    std::vector<memory_entry_ptr> released;

    // Keys whose files were removed during indexing: the indexer may have read their headers before.
    std::unordered_set<digest, digest_hash> removed;

    void         touch(index_node & node, const memory_access & access, uint64_t bytes);
    index_node & add(const digest & key, const digest & parent, entry_kind kind, const memory_tokens & tokens);
    // Changes a node's members that the order of eviction depends on, in both tiers.
    template <typename F> void rerank(index_node & node, F edit) {
        ram.change(node, [&] { disk.change(node, edit); });
    }
    bool     may_supersede(const digest & key, const memory_access & access) const;
    void     update_refs(const digest & key, const ref_counts & now);
    void     update_pin(index_node & top);
    uint64_t pinned_limit() const;
    uint64_t forget(index_node & node);
    void     update_begun(index_node & node);
    void     count_eviction(const index_node & node, int from_tier, eviction_reason why);
    uint64_t size_of(const index_node & node) const;
    void     dominate(index_node & checkpoint);
    bool     keep_in_ram(index_node & node, const memory_entry_ptr & entry);
    void     evict_from_ram(index_node & victim);
    void     drop_from_ram(index_node & node) noexcept;
    void     release_later(memory_entry_ptr entry) noexcept;
    void     write_later(index_node & node, const memory_entry_ptr & entry, const memory_access & access);
    void     share_later(index_node & node, const memory_entry_ptr & entry, const memory_access & access, int uses = 0);
    void share_in(int tier, index_node & node, const memory_entry_ptr & entry, const memory_access & access, int uses);
    bool is_in(int tier, const index_node & node) const;
    void set_in(int tier, index_node & node, bool is_there);
    void share_budgets();
    void share_used(const digest & key, const memory_access & access);
    void stop_sharing(index_node & node);
    void unshare(index_node & node);
    void finish_write(index_node & node);
    void supersede(index_node & old, index_node & by);
    void remove_replaced(const digest & key);
    void remove_later(index_node & node, eviction_reason why);
    void add_to_disk(index_node & node, uint64_t bytes);
    void take_from_disk(index_node & node);

    std::list<stored_file> start_delete(index_node & node, eviction_reason why);
    std::list<stored_file> evict_from_disk(index_node & victim);
    bool                   leave_index(std::list<stored_file> & files);

    uint64_t         bytes_on_disk(size_t n_tokens, uint64_t data_bytes) const;
    void             prove_position(index_node & node, uint64_t position);
    void             update_orphan(index_node & node);
    void             update_orphans_below(index_node & node);
    match_piece      piece_of(index_node & node, size_t begin) const;
    memory_entry_ptr lease(index_node & node) const;
    void             account_lease(index_node & node, bool was_in_ram) noexcept;
    index_node *     node_behind(const prefix_search & search, size_t n_blocks);
    void             walk(prefix_search & search);
    void             look_beyond(prefix_search & search, const index_node & last, size_t begin);
    void             look_for_checkpoint(prefix_search & search);
    void             keep_read(match_piece & piece, lease_budget::hold & reading);
    void             use_piece(match_piece & piece, const memory_access & access);

    // At its end, removes the node of a key from the index where the entry is stored nowhere.
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
