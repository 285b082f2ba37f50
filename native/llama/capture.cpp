#include "atlas-log.hpp"
#include "atlas-model-memory.hpp"
#include "atlas-sequence-state.hpp"
#include "src/llama-ext.h"

#include <algorithm>
#include <utility>

namespace atlas {

bool sequence_state::has_more(size_t n_tokens) const {
    return record.root != memory.root() || record.n_written_back + record.n_tail != n_tokens;
}

size_t sequence_state::begin_of_rest() const { return record.root == memory.root() ? record.n_written_back : 0; }

bool is_kept(const model_memory & memory, const sequence_record & record, size_t n_tokens) {
    const size_t kept = record.n_written_back + record.n_tail;
    return record.root == memory.root() && kept > 0 && kept == n_tokens &&
           memory.store.contains(record.n_tail > 0 ? record.tail : record.last_block);
}

// What was captured under a root that was replaced is captured again.
void sequence_state::follow_root() {
    const memory_root * now = memory.root();
    if (record.root != now && record.root) {
        record.n_written_back = 0;
        record.n_tail         = 0;
        record.last_block.clear();
        record.tail.clear();
        record.checkpoints.clear();
    }
    record.root = now;
}

// The state of these cells; empty when the memory has no such part. Returns false when cells are missing.
bool sequence_state::read_range(const llama_cell_range & range, state_bytes & data) const {
    data.clear();
    if (!layout.has_ranges()) {
        return true;
    }
    const auto   flags = LLAMA_STATE_SEQ_FLAGS_NON_PARTIAL;
    const size_t size  = llama_state_seq_get_data_range(ctx, nullptr, 0, id, range, flags);
    data.resize(size);
    return size > 0 && llama_state_seq_get_data_range(ctx, data.data(), size, id, range, flags) == size;
}

// What the next entry is chained to.
std::string sequence_state::parent_key(const sequence_content & of) const {
    return record.last_block.empty() ? record.root->of(of.lineage) : record.last_block;
}

// Tells to which session what was captured belongs. n_behind: the entries of the session behind its last block.
void sequence_state::add_to_session(size_t n_behind, const std::string & key, size_t n_tokens) {
    if (!record.access.session_id.empty()) {
        const size_t n_blocks = record.n_written_back / memory.store.options().block_tokens;
        memory.store.extend_session(record.access.session_id, n_blocks + n_behind, key, n_tokens);
    }
}

// Whether copying the state of so many tokens takes no longer than computing them.
bool sequence_state::is_worth(size_t n_tokens) {
    return !layout.has_ranges() ||
           !memory.capturing(part).is_worthless((double) n_tokens * record.access.seconds_per_token);
}

bool sequence_state::is_time_for_block(const capture_limits & limits) const {
    return !memory.capturing(part).is_long() ||
           !(limits.is_bounded() || (limits.is_called_away && limits.is_called_away()));
}

// Captures the n_tokens tokens behind the last block. Returns false when the sequence has no such state.
bool sequence_state::capture_range(const sequence_content & of, entry_kind kind, size_t n_tokens, bool is_computing) {
    const auto  first  = of.from(record.n_written_back);
    const auto  parent = parent_key(of);
    std::string key    = memory_store::key_of(kind, parent, first, n_tokens);

    if (!memory.store.contains(key)) {
        memory_entry entry;
        entry.kind     = kind;
        entry.parent   = parent;
        entry.position = record.n_written_back;
        entry.tokens.assign(first, first + n_tokens);
        const int64_t began = ggml_time_us();
        if (!read_range(cells_of(of.media, record.n_written_back, record.n_written_back + n_tokens), entry.data)) {
            record.is_inexact = true;
            return false;
        }
        if (!is_computing &&
            memory.capturing(part).add((double) (ggml_time_us() - began) / 1e6, kind == entry_kind::block)) {
            logf(LogLevel::INFO,
                 "copying the state of %zu tokens out of the context took %.0f ms: while it takes so long it waits "
                 "until nothing generates, and is left out where computing takes less than half of that",
                 n_tokens, (double) (ggml_time_us() - began) / 1e3);
        }
        memory.store.put(std::move(entry), record.tail, record.root->limit(record.access));
        record.tail.clear();
    }
    add_to_session(0, key, record.n_written_back + n_tokens);
    if (kind == entry_kind::tail) {
        record.tail   = key;
        record.n_tail = n_tokens;
    } else {
        record.last_block = key;
        record.n_written_back += n_tokens;
        record.n_tail = 0;
    }
    return true;
}

// Captures a checkpoint at n_tokens, which must not be before the end of the last block.
std::string sequence_state::capture_checkpoint(const sequence_content & of, size_t n_tokens, state_bytes data) {
    memory_entry entry;
    entry.kind     = entry_kind::checkpoint;
    entry.parent   = parent_key(of);
    entry.position = record.n_written_back;
    entry.tokens.assign(of.from(record.n_written_back), of.from(n_tokens));
    entry.data = std::move(data);
    return memory.store.put(std::move(entry), "", record.root->limit(record.access));
}

// Captures those of the owner's checkpoints that lie between the last block and the next.
void sequence_state::capture_owned(const sequence_content & of) {
    if (!layout.needs_checkpoint() || layout.parts == state_class::whole_only) {
        return;
    }
    const int64_t begin = record.n_written_back;
    const int64_t end   = std::min(record.n_written_back + memory.store.options().block_tokens, of.n_tokens + 1);
    for (const auto & [n_tokens, pos_max, data, size] : of.checkpoints) {
        const auto & done      = record.checkpoints;
        const bool   is_beyond = pos_max >= position_of(of.media, (size_t) n_tokens); // its state
        if (n_tokens >= begin && n_tokens < end && !is_beyond && size > 0 &&
            std::find(done.begin(), done.end(), n_tokens) == done.end()) {
            capture_checkpoint(of, n_tokens, {data, data + size});
            record.checkpoints.push_back(n_tokens);
        }
    }
}

// Captures what cannot be cut, at the last token.
void sequence_state::capture_tip(const sequence_content & of) {
    if (!layout.needs_checkpoint()) {
        return;
    }
    const auto  flags = layout.checkpoint_flags();
    state_bytes data(llama_state_seq_get_size_ext(ctx, id, flags));
    if (!data.empty() && llama_state_seq_get_data_ext(ctx, data.data(), data.size(), id, flags) == data.size()) {
        const size_t n_tokens = of.n_tokens;
        const auto   key      = capture_checkpoint(of, n_tokens, std::move(data));
        add_to_session(record.n_tail > 0 ? 1 : 0, key, n_tokens);
    }
}

bool sequence_state::capture(const sequence_content & of, const capture_limits & limits) {
    const size_t n_tokens = of.n_tokens;
    follow_root();
    if (!has_more(n_tokens) || record.n_written_back < of.first) { // the root was replaced just now
        return true;
    }
    // after a failed batch the owner names tokens that have no cells; a draft may have one for a token that comes next
    const llama_pos n_missing =
        position_of(of.media, n_tokens - 1) - llama_memory_seq_pos_max(llama_get_memory(ctx), id);
    if (n_missing > 0 || (n_missing < 0 && part == state_part::target)) {
        return true;
    }
    const size_t block_tokens = memory.store.options().block_tokens;
    while (true) {
        capture_owned(of);
        if (record.n_written_back + block_tokens > n_tokens) {
            break;
        }
        if (!is_time_for_block(limits)) {
            return false;
        }
        if (!is_worth(block_tokens) || !capture_range(of, entry_kind::block, block_tokens, limits.is_computing)) {
            return true;
        }
        if (!limits.is_checkpoint && ggml_time_us() > limits.deadline_us) {
            return !has_more(n_tokens);
        }
    }
    const size_t n_tail = n_tokens - record.n_written_back;
    if (limits.is_whole && n_tail > 0) {
        if (!is_time_for_block(limits)) {
            return false;
        }
        if (!is_worth(n_tail) || !capture_range(of, entry_kind::tail, n_tail, limits.is_computing)) {
            return true;
        }
    }
    if (limits.is_whole || limits.is_checkpoint) {
        capture_tip(of);
    }
    return true;
}

} // namespace atlas
