// The memory keeps pieces of conversations' KV state in host RAM (tier 1), on local disk (tier 2), where other servers
// find them too (tier 3) and with plugins (tiers 4 to 10), and finds them by the tokens that made them. It knows nothing of llama.cpp: state is bytes, and tokens are 32-bit integers. HTTP
// threads look prompts up, the token loop stores what it computed; threads of the memory's own touch the disk.
//
// A conversation is a chain. Its root stands for everything that makes KV incompatible (model, settings, tenant); each
// entry names its parent by key and holds the tokens that it adds. Entries are immutable and content-addressed:
//
//     key(root)  = the root itself
//     key(entry) = SHA-256(kind, key(parent), tokens), as 64 lower-case hexadecimal digits
//
// A root is 64 such digits as well: the SHA-256 of what it stands for, which includes block_tokens. A key alone proves
// nothing: find() compares every token. Only full blocks have children.
#pragma once

#include "atlas-abi.h"
#include "atlas-block-changes.hpp"
#include "atlas-facts.h"
#include "atlas-shared-tier.hpp"
#include "atlas-state-bytes.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace atlas {

class sealer;

using memory_tokens = std::vector<int32_t>;

enum class entry_kind : uint8_t {
    // state of exactly block_tokens tokens; may be empty (0 bytes) where all state is in checkpoints
    block = ATLAS_KIND_BLOCK,
    // state of 1 to block_tokens - 1 tokens at the end of a conversation; has no children
    tail = ATLAS_KIND_TAIL,
    // what cannot be rolled back, exactly at a position: that of the parent plus its own tokens, of which there are 0 to
    // block_tokens - 1; has no children
    checkpoint = ATLAS_KIND_CHECKPOINT,
};

// Eviction class of what a request touches.
enum class cache_strategy : uint8_t {
    lru      = ATLAS_STRATEGY_LRU,
    lfu      = ATLAS_STRATEGY_LFU,
    adaptive = ATLAS_STRATEGY_ADAPTIVE,
};

// How a request uses the memory.
struct memory_access {
    cache_strategy strategy = cache_strategy::adaptive;
    int            max_tier = MAX_TIER; // tiers with a larger number are neither read nor written for it

    // For put(): the entry stays in RAM, whatever max_tier says, until adopt() gives it its final root.
    bool is_held_back = false;

    // The time that computing a token takes, and that putting back a byte does; find() does not read tier 2 where reading
    // takes longer, nor fetch() those behind it. 0: not known.
    double seconds_per_token = 0;
    double seconds_per_byte  = 0;

    // For find(): llama.cpp can roll a checkpoint back by so many tokens, so that it also serves a prefix that ends up
    // to so many tokens before it. 0 for recurrent state.
    size_t rewind = 0;

    std::string session_id = {}; // for put(): the session that the entry continues; empty: none
};

// One piece of state. It is shared and immutable once stored, so whoever put it must not change `data` any more.
struct memory_entry {
    entry_kind    kind = entry_kind::block;
    std::string   parent;
    memory_tokens tokens; // added to the parent's; a checkpoint's may be empty
    state_bytes   data;

    // How many tokens of the conversation come before these; 0 also where the caller does not know. The store does not
    // keep an entry with a position whose parent is stored nowhere, since no lookup could reach it.
    uint64_t position = 0;

    // Computed by the store.
    std::string key;
};

using memory_entry_ptr = std::shared_ptr<const memory_entry>; // one that find() gave is a lease: the entry stays in RAM

// What find() found: enough to rebuild the state of the first `n_tokens` of what was asked for.
struct memory_match {
    size_t                        n_tokens = 0;
    std::vector<memory_entry_ptr> blocks; // in order; the last may be a tail, and may run past n_tokens
    memory_entry_ptr              checkpoint; // set only when one was asked for
    size_t                        n_beyond = 0; // by so many tokens the checkpoint has to be rolled back to n_tokens
    int                           tier     = 0; // slowest tier that had to be read; 0: nothing found

    bool is_too_slow = false; // the disk has more, but reading it would take longer than computing
    bool is_refused  = false; // the disk has more, but the leases of other lookups leave no room to read it

    double waited_s = 0; // time that the lookup waited for leases of others to end

    size_t n_known    = 0; // tokens that the index has of the prompt, whatever could be made of them
    bool   has_parted = false; // where they end the index goes on, with other tokens than the prompt

    // Has it end after n of its tokens. With a checkpoint, which is of one place, nothing is left then.
    void cut(size_t n);
};

// How long find() may wait for leases of other lookups to end.
struct lookup_patience {
    // Counted from when a lease last ended. 0: no wait. A request that has leases itself must not wait: it would wait
    // for its own.
    double                timeout_s = 0;
    std::function<bool()> is_gone =
        {}; // whether the client left; asked every 50 ms or so, may be empty, must not throw
};

// The name of the session that has the chain of the draft's entries, for extend_session() and memory_access.
std::string draft_session(const std::string & id);

// A budget of so many bytes or more means that there is no limit.
constexpr uint64_t UNLIMITED_BYTES = 1ull << 60;

struct memory_options {
    std::string path; // directory of tier 2; empty: there is none
    uint64_t    ram_bytes    = 0; // budget of tier 1, in bytes of data and tokens; 0: nothing is kept in RAM
    uint64_t    disk_bytes   = 0; // budget of tier 2, in bytes of files; 0: nothing is read from or kept on disk
    size_t      block_tokens = 256; // 16 to 1024

    // So much preload() reads back into RAM, in bytes of data and tokens; half of tier 1 at most. 0: nothing.
    uint64_t preload_bytes = 0;

    // Budget of the index, in bytes of RAM. Entries beyond it leave all tiers, in the disk's order of eviction.
    uint64_t index_bytes = 256ull << 20;

    // The disk evicts nothing before sessions_restored() is called, since until then the entries of the last run's
    // sessions look like those of conversations without a name. A write that finds no room waits for it.
    bool awaits_sessions = false;

    // Budget of the entries that wait for the disk, in bytes of data and tokens; an entry that alone is larger goes in
    // when the queue is empty. An entry that finds no room stays in RAM only, is counted, and is queued when it is next
    // used.
    uint64_t write_queue_bytes = 256ull << 20;

    // How long, in seconds, a tail or a checkpoint may wait before it is written: the next turn probably supersedes it.
    // Blocks are written at once, and so is everything when half of the write queue is full. 0: everything at once.
    double write_delay_s = 0;

    shared_options shared; // tier 3; add_tier() adds others
    // Files of tier 2 are encrypted by it, and those that are not are, one by one, replaced. Null: they are written as they
    // are, and encrypted ones are foreign.
    std::shared_ptr<const sealer> seal = nullptr;

    bool sync_each = true; // sync files and directories; else a power cut may lose what flush() called durable
};

// Why an entry left a tier.
enum class eviction_reason : uint8_t {
    budget, // there was no room for it
    orphan, // there was no room, and it went first since no lookup could reach it any more
    superseded, // the entry of the next turn takes its place
    forgotten, // its session was deleted
    damaged, // what the file holds is not what was written
    lost, // the file is gone: another server that shares the directory may have removed it
};

constexpr const char * EVICTION_REASON_NAMES[] = {"budget", "orphan", "superseded", "forgotten", "damaged", "lost"};

constexpr size_t N_EVICTION_REASONS = sizeof(EVICTION_REASON_NAMES) / sizeof(EVICTION_REASON_NAMES[0]);

#define ATLAS_NAME(name) name,
constexpr const char * CACHE_STRATEGY_NAMES[] = {ATLAS_STRATEGIES(ATLAS_NAME)};
#undef ATLAS_NAME

constexpr size_t N_CACHE_STRATEGIES = sizeof(CACHE_STRATEGY_NAMES) / sizeof(CACHE_STRATEGY_NAMES[0]);

// How many entries left a tier, by the strategy of the request that last touched them. An entry that the start found on
// disk counts as `lru` until a request touches it.
using eviction_counts = std::array<std::array<uint64_t, N_EVICTION_REASONS>, N_CACHE_STRATEGIES>;

// Counters since start and present sizes. Reasons count what was not found or not kept.
struct memory_stats {
    uint64_t    ram_entries = 0, ram_bytes = 0; // bytes include entries that left tier 1 and are still leased
    uint64_t    ready_bytes     = 0; // idle buffers for further entries, beyond tier 1's budget
    uint64_t    held_bytes      = 0; // leased entries that were read from disk and are not in tier 1, beyond its budget
    uint64_t    held_limit      = 0; // the most that these may take; a single lookup may take more
    uint64_t    lookups_waiting = 0, lookups_waited = 0; // for leases of others to end: now, and since the start
    uint64_t    disk_entries = 0, disk_bytes = 0;
    uint64_t    index_bytes     = 0; // RAM that the index takes, without the state of entries
    uint64_t    pending_entries = 0, pending_bytes = 0; // waiting for the disk
    uint64_t    written_entries = 0, written_bytes = 0;
    uint64_t    write_failures = 0; // tries to write, remove or sync that the system refused; they are made again
    uint64_t    write_drops    = 0; // entries not written: the queue was full, or no room could be made on disk
    uint64_t    evicted_ram = 0, evicted_disk = 0; // to keep a budget
    uint64_t    sessions      = 0;
    uint64_t    session_drops = 0; // sessions that were forgotten, or not restored, because there are too many
    uint64_t    pinned_bytes = 0, pinned_limit = 0; // an entry counts once, however many sessions and tiers have it
    uint64_t    unpinned_bytes = 0; // entries of pinned sessions beyond the limit: they rank as those of other sessions
    uint64_t    event_drops    = 0; // events that no policy took in time
    uint64_t    orphan_drops   = 0; // entries not stored at all, since their parent is stored nowhere
    uint64_t    ram_drops      = 0; // entries not kept in RAM: larger than its budget, or nothing could go for them
    uint64_t    read_entries = 0, read_bytes = 0;
    uint64_t    read_failures = 0; // files that the system refused to read
    uint64_t    used_in_ram = 0, used_in_ram_bytes = 0, used_on_disk = 0; // entries that lookups took from there
    uint64_t    kept_entries = 0, kept_bytes = 0; // that were put into RAM
    double      disk_bytes_per_s = 0; // of reading, lately; 0: not known
    uint64_t    bad_checksum     = 0; // damaged files met; they are removed
    uint64_t    foreign_files  = 0; // files of another format or version met; they are left alone and not in the budget
    uint64_t    plain_files    = 0; // files found that are not encrypted, and are to be
    bool        index_complete = false; // the index has been rebuilt from the disk
    uint64_t    preloaded_entries = 0, preloaded_bytes = 0; // read back into RAM before a request asked for them
    bool        preload_complete = false; // preloading has ended
    std::string disk_problem; // why tier 2 does not work now; empty: it does
    double      disk_retry_s = 0; // when it is tried again, in seconds from now; 0: as soon as there is something to do

    eviction_counts evictions_ram = {}, evictions_disk = {};
    uint64_t        sessions_in_ram = 0; // sessions whose first entry is in tier 1

    shared_stats              shared; // tier 3
    std::vector<shared_stats> linked; // tiers from 3 that are on, in order
};

// What happened to an entry.
using memory_event = atlas_memory_event;

// A named conversation, as the memory knows it.
struct memory_session {
    std::string              id;
    std::vector<std::string> chain; // keys of its entries; behind 64 zeros those of its draft
    uint64_t                 n_tokens  = 0;
    double                   last_used = 0; // seconds since 1970
    bool                     is_pinned = false;

    // Filled in by the store.
    uint64_t version   = 0; // larger after each change
    uint64_t ram_bytes = 0, disk_bytes = 0;
    uint64_t pinned_bytes = 0; // of its entries that are pinned: less than all where it grew beyond the limit
};

struct flush_result {
    // Nothing that was put before the call waits for the disk any more: it is durable, was superseded or is in
    // write_drops. False where there is no tier 2.
    bool complete = false;

    uint64_t entries = 0, bytes = 0; // made durable while the call waited
};

// What there is below a root.
struct kept_below {
    uint64_t entries = 0, conversations = 0; // a conversation that others continue counts as theirs

    // The beginnings of some conversations, those used last, each up to a place at which an entry ends.
    std::vector<memory_tokens> beginnings;
};

// Every member may be called from any thread, except where it says otherwise; none throws after construction, other
// than std::bad_alloc.
class memory_store {
  public:
    // Opens the directory (made with mode 0700 where it is missing; files 0600) and rebuilds the index in a background
    // thread; entries are found as soon as they are indexed. A directory that cannot be used is reported in
    // stats().disk_problem and tried again with backoff; tier 1 works without it. Several servers may share the
    // directory; a server finds what another one wrote after its own next start. Throws std::invalid_argument for a bad
    // block_tokens, and std::system_error where the system gives no more threads.
    explicit memory_store(memory_options options);

    // Stops the threads; entries that still wait for the disk are lost unless flush() was called.
    ~memory_store();

    memory_store(const memory_store &)             = delete;
    memory_store & operator=(const memory_store &) = delete;

    // key_of() gives the key that an entry would get; contains() says whether it is stored in any tier, or is on its
    // way to one. Both take microseconds and no disk access, and may be called by the token loop.
    static std::string key_of(entry_kind kind, const std::string & parent, const int32_t * tokens, size_t n_tokens);
    bool               contains(const std::string & key) const;

    // Stores an entry in RAM at once and queues it for the disk. Never waits for the disk: may be called by the token
    // loop. Returns its key, or "" where its parent is no key or its number of tokens is not one that its kind may
    // have: it is not stored then. Putting an entry that is stored already only touches it. `supersedes` names a tail
    // or checkpoint that this entry replaces: it is dropped from RAM at once, from disk when this one is durable;
    // empty: none. An entry of a session other than access.session_id is not superseded. Budgets are enforced before
    // put() returns (tier 1) or before the write (tier 2). Entries are evicted in the order that docs/eviction.md
    // describes, leaf first, never one that is leased (tier 1) or has children in the same tier. Files count once they
    // are indexed; those beyond the budget are removed then.
    std::string put(memory_entry entry, const std::string & supersedes = "", const memory_access & access = {});

    // Finds the longest prefix of the tokens whose state can be rebuilt. It reads from disk what is not in RAM, and
    // checks it. With need_checkpoint the prefix ends where a checkpoint is. For HTTP threads: may wait for the disk. A
    // damaged or missing file shortens the match and is counted. Entries that were read, and leased entries that tier 1
    // has no room for, take at most the larger of 64 MiB and an eighth of tier 1's budget, or one match of any size. A
    // lookup that would exceed that waits, in the order of arrival, until matches of others are destroyed; when its
    // patience ends it gets what is in RAM.
    memory_match find(const std::string & root, const int32_t * tokens, size_t n_tokens, bool need_checkpoint,
                      const memory_access & access = {}, const lookup_patience & patience = {});

    // Before find(), of the same prompt: where at least a block of it is missing here, brings near what tiers from 3 have of
    // that, into tier 1 and, by its rules, tier 2. They are asked in order, each for what is still missing. For HTTP threads:
    // may wait for the network, for shared.timeout_s in all at most, and half of the time that it may save; ends early once
    // is_gone() says so, which may be empty. A value that is missing, wrong or late shortens what is found.
    fetch_result fetch(const std::string & root, const int32_t * tokens, size_t n_tokens, bool need_checkpoint,
                       const memory_access & access, const std::function<bool()> & is_gone = {});

    // Waits, at most timeout_s seconds, until all that was put before has been sent to tiers from 3 to max_tier, or was
    // dropped. Returns false where that did not come to pass, or one of them does not work; there is one at least.
    bool flush_shared(double timeout_s, int max_tier = MAX_TIER);

    // Has a tier beyond this machine's from now on, of a number from 3 on. One that had that number before is on again: what
    // it was told is forgotten, and its counters go on; place and codec must be those of before. Throws std::system_error where
    // the system gives no more threads. One thread at a time.
    void add_tier(int number, const shared_options & options);
    // Neither reads nor writes a tier any more, from now on; what waits for it is dropped. Where there is none nothing is done.
    void remove_tier(int number);
    // Tries tiers that do not work at once.
    void try_tiers();
    // Whether there is a tier beyond this machine's, of a number up to max_tier. Any thread, never waits.
    bool has_linked_tier(int max_tier = MAX_TIER) const;
    // Their numbers.
    std::vector<int> linked_tiers() const;

    // Ends all waiting in find(), from now on.
    void end_waiting();

    // Moves the entries that were put under the root `from`, held back, to the root `to`, from where they go to disk;
    // sessions get the new keys. It takes the lock in steps and long, so it is for a thread of its own. Entries that
    // are put under `from` meanwhile may stay there.
    void adopt(const std::string & from, const std::string & to);

    // Waits until all files are in the index. Returns false when is_unwanted() says so, which is asked every 50 ms, or when
    // the store is being closed.
    bool wait_for_index(const std::function<bool()> & is_unwanted) const;

    // Whether anything is stored below a root. Takes microseconds.
    bool has_any_below(const std::string & root) const;

    // Looks at all entries below a root, in steps. The beginnings are n at most, of 1 to max_tokens tokens; with
    // need_checkpoint they end at a checkpoint.
    kept_below look_below(const std::string & root, size_t n, size_t max_tokens, bool need_checkpoint);

    // Tells whether a slot generates now: the writer then works slowly. Never waits.
    void set_busy(bool is_busy);

    // Tells the size in bytes of a block's state, so that buffers are ready when blocks come: at once for eight blocks,
    // at most 64 MiB; soon for the longest conversation that is on disk at the start. Buffers that become free are kept
    // for others. At most 32 blocks, 264 MiB and an eighth of tier 1's budget are kept, on top of that budget.
    void expect_blocks_of(size_t n_bytes);

    // Tells how many bytes an entry's state has at most, each time for entries of another kind. Of larger values in tier 3 none
    // is read then. HTTP threads may read meanwhile; one thread calls it.
    void expect_entries_up_to(uint64_t n_bytes);

    // Reads conversations of these roots back into RAM, in a thread of its own, once the index is complete: those first
    // that would be evicted last, until tier 1 has options().preload_bytes. While a slot generates it works a fiftieth
    // of the time. Must be called once at most: a second call ends the threads of the store.
    void preload(const std::vector<std::string> & roots);

    // For a policy that runs elsewhere. take_events() takes at most max_events of what happened since the last call; no
    // event is kept before the first call, and 65,536 at most. SAVED events are made from a call with_saved to one
    // without. set_order() then sets the priorities in a tier, 1 or 2,
    // of the entries touched in these events, in their order. Until then `lru` and `lfu` have what they promise, and
    // `adaptive` is as `lru`. One thread at a time.
    std::vector<memory_event> take_events(size_t max_events, bool with_saved = false);
    void                      set_order(int tier, const int64_t * priorities, size_t n_priorities);

    // For who keeps an index elsewhere of the blocks below a root: what happened since the last call, some max_changes at most.
    // Nothing is kept before the first call, and 16,384 at most; where that was too little, all is told anew, and so it is
    // where is_from_start. An empty answer for what is no root. One thread at a time.
    block_changes take_block_changes(const std::string & root, size_t max_changes, bool is_from_start);

    // Sessions. Their entries are evicted after all others, those of pinned sessions last. extend_session() makes a key
    // the entry at `depth` of the session's chain, counted from its first block; the token loop may call it. Beyond
    // 65,536 sessions, or 1,048,576 entries of all together, those that are idle longest and not pinned are forgotten.
    // restore_session() changes no session that is there, and takes none that would be the next to be forgotten.
    // The state of a draft model is a chain of its own, of the session draft_session() names: that is told, restored, pinned
    // and removed as a part of the other.
    void extend_session(const std::string & id, size_t depth, const std::string & key, uint64_t n_tokens);
    void restore_session(const memory_session & session);
    // Tells that restore_session() was called for all sessions of the last run.
    void                        sessions_restored();
    std::vector<memory_session> sessions_since(uint64_t version, size_t max_sessions) const;
    std::vector<memory_session> find_sessions(const std::vector<std::string> & ids) const;

    // Returns why the session was not pinned, or an empty text. Pinned entries may take half of the slowest tier. Where
    // a pinned session grows beyond that, the entries beyond it are pinned when they are next used and there is room.
    std::string pin_session(const std::string & id, bool is_pinned);

    // Forgets a session; with_entries: also deletes, in all tiers, its entries that no other session and no other
    // conversation continues. Returns the bytes that were deleted, or nothing where there is no such session. Which
    // entries are shared is not known before stats().index_complete: then they are deleted once it is, and 0 is
    // returned. Takes the lock in steps.
    std::optional<uint64_t> remove_session(const std::string & id, bool with_entries);

    // Waits, at most timeout_s seconds, until all that was put before is durable. A disk that failed is tried at once;
    // the call returns early when everything was tried and something failed.
    flush_result flush(double timeout_s);

    memory_stats stats() const;

    const memory_options & options() const;

  private:
    struct impl;
    std::unique_ptr<impl> self;

    void add_linked(memory_stats & to) const;
};

} // namespace atlas
