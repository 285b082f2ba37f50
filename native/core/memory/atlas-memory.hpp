// The memory: pieces of conversations' KV state, kept in host RAM (layer 1) and on local disk (layer 2), found again by
// the tokens that made them. Knows nothing of llama.cpp: state is bytes, and tokens are 32-bit integers.
//
// A conversation is a chain. Its root stands for everything that makes KV incompatible (model, settings, tenant); each
// entry names its parent by key and holds the tokens that it adds. Entries are immutable and content-addressed:
//
//     key(root)  = the root itself
//     key(entry) = SHA-256(kind, key(parent), tokens), as 64 lower-case hexadecimal digits
//
// A root is 64 such digits as well: the SHA-256 of what it stands for, which includes block_tokens. Names are hints, tokens are the proof: find() compares every token. Only full blocks have children.
#pragma once

#include "atlas-abi.h"
#include "atlas-facts.h"
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

using memory_tokens = std::vector<int32_t>;

enum class entry_kind : uint8_t {
    block =
        ATLAS_KIND_BLOCK, // state of exactly block_tokens tokens; may be empty (0 bytes) where all state is in checkpoints
    tail = ATLAS_KIND_TAIL, // state of 1 to block_tokens - 1 tokens at the end of a conversation; has no children
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
    cache_strategy strategy  = cache_strategy::adaptive;
    int            max_layer = 10; // layers beyond are neither read nor written for it

    // What it puts stays in RAM, whatever max_layer says, until it was adopted.
    bool is_held_back = false;

    // What computing a token would take; layer 2 is left alone where reading takes longer. 0: not known.
    double seconds_per_token = 0;

    // For find(): a checkpoint does as well for a prefix that ends up to so many tokens before it. 0 for recurrent state.
    size_t rewind = 0;

    std::string session_id = {}; // for put(): whose next turn this is; empty: nobody's
};

// One piece of state. Shared and immutable once stored; `data` is never touched again by who put it.
struct memory_entry {
    entry_kind    kind = entry_kind::block;
    std::string   parent;
    memory_tokens tokens; // added to the parent's; a checkpoint's may be empty
    state_bytes   data;

    // Tokens of the conversation before these, 0 also where the caller does not tell. Where it does, an entry whose
    // parent is stored nowhere, so that it could never be found, is not kept.
    uint64_t position = 0;

    // Computed by the store.
    std::string key;
};

using memory_entry_ptr = std::shared_ptr<const memory_entry>; // holding one is a lease: it stays in RAM

// What find() found: enough to rebuild the state of the first `n_tokens` of what was asked for.
struct memory_match {
    size_t                        n_tokens = 0;
    std::vector<memory_entry_ptr> blocks; // in order; the last may be a tail, and may run past n_tokens
    memory_entry_ptr              checkpoint; // set only when one was asked for
    size_t                        n_beyond = 0; // tokens that the checkpoint has to be taken back by, to n_tokens
    int                           layer    = 0; // slowest layer that had to be read: 1 or 2; 0: nothing found

    bool is_dear    = false; // more is on disk, but reading it would take longer than computing
    bool is_refused = false; // more is on disk, but others hold all that may be held

    double waited_s = 0; // for those that hold it
};

// How long find() may wait until others let go of what they hold.
struct lookup_patience {
    // Since any of them last did. 0: not at all, as for whoever holds some already: it would wait for itself.
    double                timeout_s = 0;
    std::function<bool()> is_gone =
        {}; // whether the client left; asked every 50 ms or so, may be empty, must not throw
};

// A budget of so many bytes or more is none.
constexpr uint64_t UNLIMITED_BYTES = 1ull << 60;

struct memory_options {
    std::string path; // directory of layer 2; empty: there is none
    uint64_t    ram_bytes    = 0; // budget of layer 1, in bytes of data and tokens; 0: nothing is kept in RAM
    uint64_t    disk_bytes   = 0; // budget of layer 2, in bytes of files; 0: nothing is read from or kept on disk
    size_t      block_tokens = 256; // 16 to 1024

    // What preload() reads back into RAM, in bytes of data and tokens; half of layer 1 at most. 0: nothing.
    uint64_t preload_bytes = 0;

    // Budget of the index, in bytes of RAM. What is beyond leaves all layers, in the order in which the disk gives it up.
    uint64_t index_bytes = 256ull << 20;

    // Nothing is given up on disk before sessions_restored() is called, so that sessions of the last run are not taken for
    // conversations without a name; what finds no room waits.
    bool awaits_sessions = false;

    // Entries waiting for the disk, in bytes of data and tokens; one that alone is larger has to find the queue empty. What
    // is more is kept in RAM only, counted, and written when next used.
    uint64_t write_queue_bytes = 256ull << 20;

    // How long, in seconds, a tail or a checkpoint, which the next turn supersedes, may wait before it is written; blocks
    // are written at once, and so is everything when half of the write queue is full. 0: everything at once.
    double write_delay_s = 0;

    bool sync_each = true; // sync files and directories; else a power cut may lose what was written, flush() or not
};

// Why an entry left a layer.
enum class eviction_reason : uint8_t {
    budget, // there was no room for it
    orphan, // the same; it went first, as it could not be reached any more
    superseded, // the next turn's takes its place
    forgotten, // its session was deleted
    damaged, // what the file holds is not what was written
    lost, // the file is gone, as another server's that shares the directory may be
};

constexpr const char * EVICTION_REASON_NAMES[] = {"budget", "orphan", "superseded", "forgotten", "damaged", "lost"};

constexpr size_t N_EVICTION_REASONS = sizeof(EVICTION_REASON_NAMES) / sizeof(EVICTION_REASON_NAMES[0]);

#define ATLAS_NAME(name) name,
constexpr const char * CACHE_STRATEGY_NAMES[] = {ATLAS_STRATEGIES(ATLAS_NAME)};
#undef ATLAS_NAME

constexpr size_t N_CACHE_STRATEGIES = sizeof(CACHE_STRATEGY_NAMES) / sizeof(CACHE_STRATEGY_NAMES[0]);

// How many entries left a layer, by the strategy of the request that last touched them. What a restart found on disk
// and nobody has touched since counts as `lru`.
using eviction_counts = std::array<std::array<uint64_t, N_EVICTION_REASONS>, N_CACHE_STRATEGIES>;

// Counters since start and present sizes. Reasons count what was not found or not kept.
struct memory_stats {
    uint64_t ram_entries = 0, ram_bytes = 0; // bytes: and what left layer 1 while a match holds it
    uint64_t ready_bytes     = 0; // of buffers that are ready for more, beyond layer 1's budget
    uint64_t held_bytes      = 0; // of what lookups read, and matches hold that layer 1 does not, beyond its budget
    uint64_t held_limit      = 0; // and what they may; one alone may hold more
    uint64_t lookups_waiting = 0, lookups_waited = 0; // for others to let go; now, and since the start
    uint64_t disk_entries = 0, disk_bytes = 0;
    uint64_t index_bytes     = 0; // what is known of entries takes, in RAM, without their state
    uint64_t pending_entries = 0, pending_bytes = 0; // waiting for the disk
    uint64_t written_entries = 0, written_bytes = 0;
    uint64_t write_failures = 0; // tries to write, remove or sync that the system refused; they are made again
    uint64_t write_drops    = 0; // entries not written: the queue was full, or no room could be made on disk
    uint64_t evicted_ram = 0, evicted_disk = 0; // to keep a budget
    uint64_t sessions      = 0;
    uint64_t session_drops = 0; // sessions that were given up, or not taken, because there are too many
    uint64_t pinned_bytes = 0, pinned_limit = 0; // entries that several sessions or layers have count once
    uint64_t unpinned_bytes = 0; // of pinned sessions too, which grew beyond the limit: kept as those of other sessions
    uint64_t event_drops    = 0; // events that no policy took in time
    uint64_t orphan_drops   = 0; // not kept at all: known not to be the first of a conversation, and without its parent
    uint64_t ram_drops      = 0; // not kept in RAM: larger than its budget, or all the rest was leased or had children
    uint64_t read_entries = 0, read_bytes = 0;
    uint64_t read_failures     = 0; // files that the system refused to read
    uint64_t bad_checksum      = 0; // damaged files met; they are removed
    uint64_t foreign_files     = 0; // files of another format or version met; they are left alone and not in the budget
    bool     index_complete    = false; // the index has been rebuilt from the disk
    uint64_t preloaded_entries = 0, preloaded_bytes = 0; // read back into RAM before anybody asked
    bool     preload_complete = false; // no more will be
    std::string disk_problem; // why layer 2 does not work now; empty: it does
    double      disk_retry_s = 0; // when it is tried again, in seconds from now; 0: as soon as there is something to do

    eviction_counts evictions_ram = {}, evictions_disk = {};
    uint64_t        sessions_in_ram = 0; // sessions whose beginning is in layer 1
};

// What happened to an entry.
using memory_event = atlas_memory_event;

// A named conversation, as the memory knows it.
struct memory_session {
    std::string              id;
    std::vector<std::string> chain; // keys of its entries
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
    // write_drops. False where there is no layer 2.
    bool complete = false;

    uint64_t entries = 0, bytes = 0; // made durable while the call waited
};

// Every member may be called from any thread, except where it says otherwise; none throws after construction, other
// than std::bad_alloc.
class memory_store {
  public:
    // Opens the directory (made with mode 0700 where it is missing; files 0600) and rebuilds the index in a background
    // thread; entries are found as soon as they are indexed. A directory that cannot be used is reported in
    // stats().disk_problem and tried again with backoff: layer 1 works without it. Several servers may share it; what
    // one writes the others find after their next start. Throws std::invalid_argument for a bad block_tokens, and
    // std::system_error where the system gives no more threads.
    explicit memory_store(memory_options options);

    // Stops the threads; what is still waiting for the disk is lost unless flush() was called.
    ~memory_store();

    memory_store(const memory_store &)             = delete;
    memory_store & operator=(const memory_store &) = delete;

    // The key that an entry would get, and whether it is stored in any layer (or on its way to one). Both take
    // microseconds and no disk access, and may be called by the token loop.
    static std::string key_of(entry_kind kind, const std::string & parent, const int32_t * tokens, size_t n_tokens);
    bool               contains(const std::string & key) const;

    // Stores an entry in RAM at once and queues it for the disk. Never waits for the disk: may be called by the token
    // loop. Returns its key, or "" where its parent is no key or its number of tokens is not one that its kind may have:
    // it is not stored then. Storing what is stored already only touches it. `supersedes` names a tail or checkpoint
    // which is then no longer needed and is dropped: from RAM at once, from disk when this one is durable; empty: none.
    // What belongs to a session other than access.session_id stays.
    // Budgets are enforced before it returns (layer 1) or before the write (layer 2); in the order that docs/eviction.md
    // describes, leaf first, never an entry that is leased (layer 1) or has children in the same layer. Files count once
    // they are indexed: what is too much after that is removed at once.
    std::string put(memory_entry entry, const std::string & supersedes = "", const memory_access & access = {});

    // Finds the longest prefix of the tokens whose state can be rebuilt, reading from disk what is not in RAM and
    // checking it. With need_checkpoint the prefix ends where a checkpoint is; with a limit, at most that many tokens.
    // For HTTP threads: may wait for the disk. A damaged or missing file shortens the match and is counted.
    // What is read, and what a match holds that layer 1 has no room for, takes at most the larger of 64 MiB and an eighth
    // of layer 1's budget, or one match of any size. Whoever would exceed that waits, in turn, until matches of others
    // are destroyed; when its patience ends it gets what is in RAM.
    memory_match find(const std::string & root, const int32_t * tokens, size_t n_tokens, bool need_checkpoint,
                      const memory_access & access = {}, const lookup_patience & patience = {});

    // Nobody waits in find() any more.
    void end_waiting();

    // What was put under one root, held back, is from now on kept under another, and goes to disk where it may; sessions
    // have the new keys. Takes time and the lock in turns: for a thread of its own. What is put under the old root
    // meanwhile may stay there.
    void adopt(const std::string & from, const std::string & to);

    // Tells whether something generates now: the writer then takes its time. Never waits.
    void set_busy(bool is_busy);

    // Tells the size in bytes of the state of a block, so that buffers are there when blocks come: at once for eight, at
    // most 64 MiB; soon for the longest conversation that is on disk at start. Buffers that become free are kept for
    // others. At most 32 blocks, 264 MiB and an eighth of layer 1's budget are kept, on top of that budget.
    void expect_blocks_of(size_t n_bytes);

    // Once the index is complete, reads conversations back into RAM in a thread of its own, those that would be given up
    // last first, until layer 1 holds options().preload_bytes; only what continues these roots. While something generates
    // it takes a fiftieth of the time. Called once, if at all.
    void preload(const std::vector<std::string> & roots);

    // A policy that runs elsewhere: takes at most max_events of what happened since the last call (nothing is kept before
    // the first, and 65,536 events at most), then sets the priorities in a layer, 1 or 2, of the entries touched in these
    // events, in their order. Until then the strategies `lru` and `lfu` have what they promise, `adaptive` is as `lru`.
    // One thread at a time.
    std::vector<memory_event> take_events(size_t max_events);
    void                      set_order(int layer, const int64_t * priorities, size_t n_priorities);

    // Sessions. Entries of one are given up after all others, those of a pinned one last. extend_session() makes a key the
    // entry at `depth` of its chain, counted from its first block; may be called by the token loop. Beyond 65,536 sessions,
    // or 1,048,576 entries of all together, those that are idle longest and not pinned are forgotten; restore_session()
    // takes none that would be the next to go, and changes none that is there.
    void extend_session(const std::string & id, size_t depth, const std::string & key, uint64_t n_tokens);
    void restore_session(const memory_session & session);
    // restore_session() was called for all that there are.
    void                        sessions_restored();
    std::vector<memory_session> sessions_since(uint64_t version, size_t max_sessions) const;
    std::vector<memory_session> find_sessions(const std::vector<std::string> & ids) const;

    // Returns why not, or nothing: pinned entries may take half of the slowest layer. A pinned session that grows beyond
    // that stays pinned up to there; what is beyond is pinned when it is next used and there is room.
    std::string pin_session(const std::string & id, bool is_pinned);

    // Forgets a session; with_entries: also what no other session and no other conversation builds upon, in all layers.
    // Returns the bytes that were given up, or nothing where there is no such session. What is shared is not known before
    // stats().index_complete: the entries are then given up once it is, and 0 is returned. Takes the lock in turns.
    std::optional<uint64_t> remove_session(const std::string & id, bool with_entries);

    // Waits, at most timeout_s seconds, until all that was put before is durable. Tries a failing disk at once, and
    // returns when everything was tried and something failed.
    flush_result flush(double timeout_s);

    memory_stats stats() const;

    const memory_options & options() const;

  private:
    struct impl;
    std::unique_ptr<impl> self;
};

} // namespace atlas
