#include "adoption.hpp"
#include "hash/hash.h"
#include "lookup.hpp"
#include "store-impl.hpp"

#include <algorithm>
#include <stdexcept>

namespace atlas {

using namespace memory;

memory_store::memory_store(memory_options options) {
    if (options.block_tokens < MIN_BLOCK_TOKENS || options.block_tokens > MAX_TOKENS) {
        throw std::invalid_argument("block_tokens is " + std::to_string(options.block_tokens) +
                                    ": give a number from " + std::to_string(MIN_BLOCK_TOKENS) + " to " +
                                    std::to_string(MAX_TOKENS));
    }
    self                 = std::make_unique<impl>(options);
    shared_state & state = self->state;
    if (options.shared.place) {
        add_tier(SHARED_TIER, options.shared);
    }
    if (!state.entries.has_disk) {
        state.entries.counters.index_complete = true;
        return;
    }
    try {
        state.files.make();
    } catch (const std::system_error & error) {
        state.indexing.begin(error.what());
    }
    self->disk_writer  = std::make_unique<writer>(state);
    self->disk_indexer = std::make_unique<indexer>(state);
}

memory_store::~memory_store() = default;

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

std::string memory_store::put(memory_entry entry, const std::string & supersedes, const memory_access & access) {
    const auto parent = digest_from_hex(entry.parent);
    if (!parent || !has_right_length(entry.kind, entry.tokens.size(), self->options.block_tokens)) {
        return "";
    }
    entry.key                = key_of(entry.kind, entry.parent, entry.tokens.data(), entry.tokens.size());
    const std::string key    = entry.key;
    const auto        stored = std::make_shared<const memory_entry>(std::move(entry));
    {
        std::vector<memory_entry_ptr>     released; // outlives the lock
        const std::lock_guard<std::mutex> held(self->state.mutex);
        self->state.entries.put(stored, *digest_from_hex(key), *parent, digest_from_hex(supersedes), access);
        released = self->state.entries.take_released();
    }
    self->state.work.notify_one();
    self->state.share_work.notify_all();
    return key;
}

memory_match memory_store::find(const std::string & root, const int32_t * tokens, size_t n_tokens, bool need_checkpoint,
                                const memory_access & access, const lookup_patience & patience) {
    const auto key = digest_from_hex(root);
    return key ? lookup(self->state, self->disk_reader, self->options.block_tokens)
                     .find(*key, tokens, n_tokens, need_checkpoint, access, patience)
               : memory_match();
}

void memory_store::adopt(const std::string & from, const std::string & to) {
    memory::adopt(*this, self->state, digest_from_hex(from).value(), digest_from_hex(to).value());
}

bool memory_store::wait_for_index(const std::function<bool()> & is_unwanted) const {
    shared_state &               state = self->state;
    std::unique_lock<std::mutex> held(state.mutex);
    while (!state.is_stopping && !state.entries.counters.index_complete && !is_unwanted()) {
        state.progress.wait_for(held, std::chrono::milliseconds(50));
    }
    return !state.is_stopping && state.entries.counters.index_complete && !is_unwanted();
}

bool memory_store::has_any_below(const std::string & root) const {
    const std::lock_guard<std::mutex> held(self->state.mutex);
    return self->state.entries.has_any_below(digest_from_hex(root).value());
}

kept_below memory_store::look_below(const std::string & root, size_t n, size_t max_tokens, bool need_checkpoint) {
    survey look = {digest_from_hex(root).value(), n, max_tokens, need_checkpoint, {}, {}, {}};
    self->state.in_steps([&] { return !self->state.is_stopping && self->state.entries.look_on(look, AT_ONCE); });
    return std::move(look.found);
}

void memory_store::end_waiting() { self->state.entries.leases->close(); }

void memory_store::set_busy(bool is_busy) { self->state.is_busy = is_busy; }

void memory_store::expect_blocks_of(size_t n_bytes) {
    constexpr uint64_t MAX_READY_BYTES = 64 << 20; // at first; the indexer may find conversations that need more
    constexpr uint64_t N_READY         = 8;
    constexpr uint64_t MAX_IDLE_BYTES  = 264 << 20; // 32 blocks of 8 MiB, which have a page more
    constexpr uint64_t N_IDLE          = 32;
    buffer_pool::instance().set_limits(
        std::min({MAX_IDLE_BYTES, self->options.ram_bytes / 8, N_IDLE * (n_bytes + buffer_pool::pages().page)}),
        n_bytes, std::min(N_READY, MAX_READY_BYTES / std::max<uint64_t>(n_bytes, 1)));
    self->expected_block = file_bytes(self->options.block_tokens, n_bytes);
    self->tell_all_sizes();
}

void memory_store::expect_entries_up_to(uint64_t n_bytes) {
    self->largest_entry = std::min(std::max(self->largest_entry.load(), n_bytes), MAX_DATA_BYTES);
    self->tell_all_sizes();
}

void memory_store::preload(const std::vector<std::string> & roots) {
    const uint64_t   max_bytes = std::min(self->options.preload_bytes, self->options.ram_bytes / 2);
    std::set<digest> wanted;
    for (const std::string & root : roots) {
        if (const auto key = digest_from_hex(root)) {
            wanted.insert(*key);
        }
    }
    if (max_bytes > 0 && self->state.entries.has_disk) {
        try {
            self->disk_preloader =
                std::make_unique<preloader>(self->state, self->disk_reader, std::move(wanted), max_bytes);
            return;
        } catch (const std::system_error &) { // there is no thread for it: lookups read everything themselves
        }
    }
    const std::lock_guard<std::mutex> held(self->state.mutex);
    self->state.entries.counters.preload_complete = true;
}

std::vector<memory_event> memory_store::take_events(size_t max_events, bool with_saved) {
    const std::lock_guard<std::mutex> held(self->state.mutex);
    return self->state.entries.events.take(max_events, with_saved);
}

block_changes memory_store::take_block_changes(const std::string & root, size_t max_changes, bool is_from_start) {
    block_changes taken;
    const auto    key = digest_from_hex(root);
    if (!key) {
        return taken;
    }
    self->state.in_steps([&] {
        catalog & entries = self->state.entries;
        if (is_from_start || !entries.blocks.is_of(*key)) {
            entries.blocks.begin(*key);
            is_from_start = false;
        }
        return entries.tell_blocks(taken, max_changes, AT_ONCE);
    });
    return taken;
}

void memory_store::set_order(int tier, const int64_t * priorities, size_t n_priorities) {
    size_t done = 0;
    self->state.in_steps([&] {
        catalog &    entries = self->state.entries;
        const size_t n       = std::min(n_priorities, entries.events.taken().size());
        for (const size_t end = std::min(done + AT_ONCE, n); done < end; done++) {
            const auto & touch = entries.events.taken()[done];
            entries.set_priority(tier, touch.key, touch.now, priorities[done]);
        }
        return done < n;
    });
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
        state.flush_target = std::max(state.flush_target, target);
        state.hasty_tries  = std::max(state.hasty_tries, state.entries.queue.n_jobs() + 1);
        state.work.notify_one();
        state.stop.notify_all();
    }
    // returns early when everything was tried and something failed
    state.progress.wait_until(held, deadline, [&] {
        return state.durable >= target || state.is_stopping ||
               (state.hasty_tries == 0 && state.entries.counters.write_failures > before.write_failures);
    });
    const memory_stats & after = state.entries.counters;
    return {state.durable >= target, after.written_entries - before.written_entries,
            after.written_bytes - before.written_bytes};
}

memory_stats memory_store::stats() const {
    memory_stats stats;
    {
        const std::lock_guard<std::mutex> held(self->state.mutex);
        stats = self->state.stats();
    }
    const double per_byte  = self->disk_reader.seconds_per_byte();
    stats.disk_bytes_per_s = per_byte > 0 ? 1 / per_byte : 0;
    add_linked(stats);
    return stats;
}

const memory_options & memory_store::options() const { return self->options; }

} // namespace atlas
