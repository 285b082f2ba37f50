#include "atlas-unit-cost.hpp"
#include "buffer-pool.hpp"
#include "hash/hash.h"
#include "indexer.hpp"
#include "writer.hpp"

#include <algorithm>
#include <atomic>
#include <map>
#include <stdexcept>
#include <thread>

namespace atlas {

using namespace memory;

struct memory_store::impl {
    explicit impl(memory_options & given) : options(given), state(options) {}

    const memory_options     options;
    shared_state             state;
    buffer_stocker           stocker;
    transfer_cost            reading; // of layer 2
    std::unique_ptr<writer>  disk_writer;
    std::unique_ptr<indexer> disk_indexer;

    bool                  read(match_piece & piece);
    void                  read_all(const std::vector<match_piece *> & pieces);
    std::optional<size_t> read_missing(match_plan & plan, std::map<digest, memory_entry_ptr> & held);
};

memory_store::memory_store(memory_options options) {
    if (options.block_tokens < 16 || options.block_tokens > MAX_TOKENS) {
        throw std::invalid_argument("block_tokens is " + std::to_string(options.block_tokens) +
                                    ": give a number from 16 to " + std::to_string(MAX_TOKENS));
    }
    self                 = std::make_unique<impl>(options);
    shared_state & state = self->state;
    if (!state.entries.has_disk) {
        state.entries.counters.index_complete = true;
        return;
    }
    try {
        state.files.make();
    } catch (const std::system_error & error) {
        state.entries.counters.disk_problem = error.what();
    }
    self->disk_writer  = std::make_unique<writer>(state);
    self->disk_indexer = std::make_unique<indexer>(state);
}

memory_store::~memory_store() {
    {
        const std::lock_guard<std::mutex> held(self->state.mutex);
        self->state.is_stopping = true;
    }
    self->state.work.notify_all();
    self->state.stop.notify_all();
    self->state.progress.notify_all();
    self->disk_indexer.reset();
    self->disk_writer.reset();
}

std::string memory_store::key_of(entry_kind kind, const std::string & parent, const int32_t * tokens, size_t n_tokens) {
    std::string text;
    text.reserve(1 + parent.size() + 4 * n_tokens);
    text += (char) kind;
    text += parent;
    for (size_t i = 0; i < n_tokens; i++) {
        for (int shift = 0; shift < 32; shift += 8) {
            text += (char) ((uint32_t) tokens[i] >> shift);
        }
    }
    return hash_sha256_hex(text.data(), text.size());
}

bool memory_store::contains(const std::string & key) const {
    const auto                        wanted = digest_from_hex(key);
    const std::lock_guard<std::mutex> held(self->state.mutex);
    return wanted && self->state.entries.contains(*wanted);
}

static bool has_right_length(const memory_entry & entry, size_t block_tokens) {
    switch (entry.kind) {
        case entry_kind::block:      return entry.tokens.size() == block_tokens;
        case entry_kind::tail:       return !entry.tokens.empty() && entry.tokens.size() < block_tokens;
        case entry_kind::checkpoint: return entry.tokens.size() < block_tokens;
    }
    return false;
}

std::string memory_store::put(memory_entry entry, const std::string & supersedes, const memory_access & access) {
    const auto parent = digest_from_hex(entry.parent);
    if (!parent || !has_right_length(entry, self->options.block_tokens)) {
        return "";
    }
    entry.key                = key_of(entry.kind, entry.parent, entry.tokens.data(), entry.tokens.size());
    const std::string key    = entry.key;
    const auto        stored = std::make_shared<const memory_entry>(std::move(entry));
    released_state    released; // outlives the lock: freeing much memory takes long
    {
        const std::lock_guard<std::mutex> held(self->state.mutex);
        self->state.entries.put(stored, *digest_from_hex(key), *parent, digest_from_hex(supersedes), access, released);
    }
    self->state.work.notify_one();
    return key;
}

// Reads one entry from disk. Returns false when it is not there as it should be.
bool memory_store::impl::read(match_piece & piece) {
    auto        entry = std::make_shared<memory_entry>();
    file_header header;
    file_facts  facts;
    auto        result = read_result::failed;
    try {
        result = read_file(state.files.file_path(piece.key), header, facts, &entry->data);
    } catch (const std::bad_alloc &) { // no room for it now
    }
    if (result == read_result::good && (header.key != piece.key || header.parent != piece.parent ||
                                        header.kind != piece.kind || header.tokens != piece.tokens)) {
        result = read_result::damaged;
    }
    const std::lock_guard<std::mutex> held(state.mutex);
    memory_stats &                    counters = state.entries.counters;
    switch (result) {
        case read_result::good:
            counters.read_entries++;
            counters.read_bytes += facts.bytes;
            entry->kind     = piece.kind;
            entry->parent   = digest_hex(piece.parent);
            entry->tokens   = piece.tokens;
            entry->position = piece.begin;
            entry->key      = digest_hex(piece.key);
            piece.entry     = std::move(entry);
            piece.was_read  = true;
            return true;
        case read_result::damaged:
            state.entries.remove_damaged_file(piece.key);
            state.work.notify_one();
            return false;
        case read_result::foreign:
            counters.foreign_files++;
            state.entries.lose_file(piece.key);
            return false;
        case read_result::missing: state.entries.lose_file(piece.key); return false;
        case read_result::failed:  return false;
    }
    return false;
}

// Reads several, by several threads: a disk does best with more than one request, and checking takes time.
void memory_store::impl::read_all(const std::vector<match_piece *> & pieces) {
    constexpr size_t         MAX_THREADS = 4;
    const auto               began       = std::chrono::steady_clock::now();
    std::atomic<size_t>      next{0};
    std::atomic<size_t>      n_wanted{pieces.size()}; // up to the first that cannot be read
    std::vector<std::thread> others;
    others.reserve(MAX_THREADS);
    const auto work = [&] {
        // what comes after one that cannot be read is of no use
        for (size_t i = next++; i < n_wanted; i = next++) {
            if (!read(*pieces[i])) {
                for (size_t end = n_wanted; i < end && !n_wanted.compare_exchange_weak(end, i);) {
                }
            }
        }
    };
    const size_t n_threads = std::min({MAX_THREADS, pieces.size(), (size_t) std::thread::hardware_concurrency()});
    try {
        while (others.size() + 1 < n_threads) {
            others.emplace_back(work);
        }
    } catch (const std::system_error &) { // this one reads them all
    }
    work();
    for (std::thread & other : others) {
        other.join();
    }
    if (n_wanted == pieces.size()) {
        const std::chrono::duration<double> spent   = std::chrono::steady_clock::now() - began;
        double                              n_bytes = 0;
        for (const match_piece * piece : pieces) {
            n_bytes += (double) piece->bytes;
        }
        reading.add(spent.count(), n_bytes);
    }
}

// Reads what a plan lacks; `held` keeps what was read for a plan before. Returns, where something could not be read,
// how many tokens can be had without it.
std::optional<size_t> memory_store::impl::read_missing(match_plan & plan, std::map<digest, memory_entry_ptr> & held) {
    std::vector<match_piece *> missing;
    const auto                 ask_for = [&](match_piece & piece) {
        if (const auto it = held.find(piece.key); !piece.entry && it != held.end()) {
            piece.entry    = it->second;
            piece.was_read = true;
        }
        if (!piece.entry) {
            missing.push_back(&piece);
        }
    };
    if (plan.checkpoint) {
        ask_for(*plan.checkpoint);
    }
    for (match_piece & piece : plan.blocks) {
        ask_for(piece);
    }
    read_all(missing);
    for (const match_piece * piece : missing) {
        if (piece->entry) {
            held[piece->key] = piece->entry;
        }
    }
    if (plan.checkpoint && !plan.checkpoint->entry) {
        return plan.n_tokens - 1;
    }
    for (const match_piece & piece : plan.blocks) {
        if (!piece.entry) {
            return piece.begin;
        }
    }
    return std::nullopt;
}

memory_match memory_store::find(const std::string & root, const int32_t * tokens, size_t n_tokens, bool need_checkpoint,
                                const memory_access & access) {
    const auto root_key = digest_from_hex(root);
    if (!root_key) {
        return {};
    }
    std::map<digest, memory_entry_ptr> held;
    released_state                     released;
    match_plan                         plan;
    memory_match                       match;
    int                                max_layer = access.max_layer;
    while (true) {
        plan = {};
        {
            const std::lock_guard<std::mutex> lock(self->state.mutex);
            plan = self->state.entries.choose(*root_key, tokens, n_tokens, need_checkpoint, max_layer);
        }
        if (held.empty() &&
            self->reading.is_dear((double) plan.bytes_to_read(), access.seconds_per_token * (double) plan.n_tokens)) {
            match.is_dear = true;
            max_layer     = 1;
            continue;
        }
        const auto possible = self->read_missing(plan, held);
        if (!possible) {
            break;
        }
        n_tokens = *possible;
    }
    {
        const std::lock_guard<std::mutex> lock(self->state.mutex);
        self->state.entries.use(plan, access, released);
    }
    self->state.work.notify_one();

    bool was_read  = false;
    match.n_tokens = plan.n_tokens;
    for (match_piece & piece : plan.blocks) {
        was_read |= piece.was_read;
        match.blocks.push_back(std::move(piece.entry));
    }
    if (plan.checkpoint) {
        was_read |= plan.checkpoint->was_read;
        match.checkpoint = std::move(plan.checkpoint->entry);
    }
    match.layer = match.n_tokens == 0 ? 0 : was_read ? 2 : 1;
    return match;
}

void memory_store::set_busy(bool is_busy) { self->state.is_busy = is_busy; }

void memory_store::expect_blocks_of(size_t n_bytes) {
    constexpr uint64_t MAX_IDLE_BYTES = 64 << 20;
    constexpr uint64_t N_BLOCKS       = 8;
    buffer_pool::instance().set_limits(std::min({MAX_IDLE_BYTES, self->options.ram_bytes / 8, N_BLOCKS * n_bytes}),
                                       n_bytes);
}

std::vector<memory_event> memory_store::take_events(size_t max_events) {
    const std::lock_guard<std::mutex> held(self->state.mutex);
    return self->state.entries.events.take(max_events);
}

void memory_store::set_order(int layer, const int64_t * priorities, size_t n_priorities) {
    constexpr size_t AT_ONCE = 64; // the token loop may wait for the lock
    for (size_t begin = 0; begin < n_priorities; begin += AT_ONCE) {
        const std::lock_guard<std::mutex> held(self->state.mutex);
        catalog &                         entries = self->state.entries;
        const size_t end = std::min({begin + AT_ONCE, n_priorities, entries.events.taken().size()});
        for (size_t i = begin; i < end; i++) {
            const auto & touch = entries.events.taken()[i];
            entries.set_priority(layer, touch.key, touch.now, priorities[i]);
        }
    }
}

void memory_store::extend_session(const std::string & id, size_t depth, const std::string & key, uint64_t n_tokens) {
    if (const auto digest = digest_from_hex(key)) {
        const std::lock_guard<std::mutex> held(self->state.mutex);
        self->state.entries.sessions.extend(id, depth, *digest, n_tokens);
    }
}

void memory_store::restore_session(const memory_session & from) {
    session restored;
    for (const std::string & key : from.chain) {
        const auto digest = digest_from_hex(key);
        if (!digest) {
            break;
        }
        restored.chain.push_back(*digest);
    }
    restored.n_tokens  = from.n_tokens;
    restored.last_used = from.last_used;
    restored.is_pinned = from.is_pinned;
    const std::lock_guard<std::mutex> held(self->state.mutex);
    self->state.entries.sessions.restore(from.id, std::move(restored));
}

std::vector<memory_session> memory_store::sessions_since(uint64_t version, size_t max_sessions) const {
    std::vector<std::string> ids;
    uint64_t                 last = version;
    {
        const std::lock_guard<std::mutex> held(self->state.mutex);
        ids = self->state.entries.sessions.changed_since(version, max_sessions);
        if (ids.empty()) {
            return {};
        }
        last = self->state.entries.sessions.find(ids.back())->version;
    }
    std::vector<memory_session> found = find_sessions(ids);
    // what changed meanwhile is told again, and so is what changed before it
    for (memory_session & session : found) {
        session.version = std::min(session.version, last);
    }
    return found;
}

std::vector<memory_session> memory_store::find_sessions(const std::vector<std::string> & ids) const {
    std::vector<memory_session> found;
    for (const std::string & id : ids) { // one at a time: the token loop may wait for the lock
        const std::lock_guard<std::mutex> held(self->state.mutex);
        if (const session * of = self->state.entries.sessions.find(id)) {
            found.push_back(self->state.entries.describe(id, *of));
        }
    }
    return found;
}

std::string memory_store::pin_session(const std::string & id, bool is_pinned) {
    const std::lock_guard<std::mutex> held(self->state.mutex);
    return self->state.entries.pin(id, is_pinned);
}

std::optional<uint64_t> memory_store::remove_session(const std::string & id, bool with_entries) {
    released_state          released;
    std::optional<uint64_t> bytes;
    {
        const std::lock_guard<std::mutex> held(self->state.mutex);
        bytes = self->state.entries.remove_session(id, with_entries, released);
    }
    self->state.work.notify_one();
    return bytes;
}

flush_result memory_store::flush(double timeout_s) {
    constexpr double MAX_S = 1e6;
    shared_state &   state = self->state;
    const auto       deadline =
        std::chrono::steady_clock::now() + std::chrono::duration_cast<std::chrono::steady_clock::duration>(
                                               std::chrono::duration<double>(std::clamp(timeout_s, 0.0, MAX_S)));
    std::unique_lock<std::mutex> held(state.mutex);
    if (!state.entries.has_disk) {
        return {};
    }
    const memory_stats before = state.entries.counters;
    const uint64_t     target = state.entries.queue.last_sequence();
    if (state.durable < target) {
        state.asked       = std::max(state.asked, target);
        state.hasty_tries = std::max(state.hasty_tries, state.entries.queue.n_jobs() + 1);
        state.work.notify_one();
        state.stop.notify_all();
    }
    // gives up when everything was tried and something failed
    state.progress.wait_until(held, deadline, [&] {
        return state.durable >= target || state.is_stopping ||
               (state.hasty_tries == 0 && state.entries.counters.write_failures > before.write_failures);
    });
    const memory_stats & after = state.entries.counters;
    return {state.durable >= target, after.written_entries - before.written_entries,
            after.written_bytes - before.written_bytes};
}

memory_stats memory_store::stats() const {
    const std::lock_guard<std::mutex> held(self->state.mutex);
    return self->state.entries.stats();
}

const memory_options & memory_store::options() const { return self->options; }

} // namespace atlas
