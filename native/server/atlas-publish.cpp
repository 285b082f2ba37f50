#include "atlas-cells.h"
#include "atlas-llama-server.h"
#include "atlas-log.hpp"
#include "atlas-memory-setup.h"
#include "atlas-runtime.hpp"
#include "atlas-slots.h"
#include "server-common.h"
#include "server-task.h"

#include <algorithm>
#include <limits>
#include <new>
#include <utility>

using atlas::entry_kind;
using atlas::memory_entry;

// Where checkpoints are kept besides stock's own (at user messages and near the end of a prompt): so far before the end
// that a changed last line still finds one, and along a long prompt. Each costs a batch that ends there.
static const size_t CHECKPOINT_BEFORE_END = 32;
static const size_t CHECKPOINT_SPACING    = 2048;

// Stock's own last checkpoint of a prompt. It is a part of the state, and so of no use where only the whole will do.
static const size_t STOCK_BEFORE_END = 4;

static const int64_t NO_DEADLINE = std::numeric_limits<int64_t>::max();

// The state of tokens [p0, p1) of a sequence; empty when the memory has no such part. Returns false when cells are missing.
static bool read_range(llama_context * ctx, int id_slot, llama_pos p0, llama_pos p1, atlas::state_bytes & data) {
    data.clear();
    if (atlas_setup.parts == state_class::rest_only || atlas_setup.parts == state_class::whole_only) {
        return true;
    }
    const auto   flags = LLAMA_STATE_SEQ_FLAGS_NON_PARTIAL;
    const size_t size  = llama_state_seq_get_data_range(ctx, nullptr, 0, id_slot, p0, p1, flags);
    data.resize(size);
    return size > 0 && llama_state_seq_get_data_range(ctx, data.data(), size, id_slot, p0, p1, flags) == size;
}

// What the next entry of the slot's conversation is chained to.
static std::string parent_key(const server_prompt & prompt) {
    const auto & state = prompt.atlas;
    return state.last_block.empty() ? state.root->of(prompt.tokens.lineage) : state.last_block;
}

// What was published under a root that was replaced is published again.
static void follow_root(atlas_prompt_state & state) {
    const memory_root * now = atlas_setup.root;
    if (state.root != now && state.root) {
        state.n_published = 0;
        state.n_tail      = 0;
        state.last_block.clear();
        state.tail.clear();
        state.checkpoints.clear();
    }
    state.root = now;
}

// Tells to which session what was published belongs. n_behind: the entries of the session behind its last block.
static void add_to_session(const atlas_prompt_state & state, size_t n_behind, const std::string & key,
                           size_t n_tokens) {
    if (!state.access.session_id.empty()) {
        const size_t n_blocks = state.n_published / atlas_setup.store->options().block_tokens;
        atlas_setup.store->extend_session(state.access.session_id, n_blocks + n_behind, key, n_tokens);
    }
}

// Publishes the n_tokens tokens behind the last published block. Returns false when the slot has no such state.
static bool publish_range(llama_context * ctx, int id_slot, server_prompt & prompt, entry_kind kind, size_t n_tokens) {
    auto &       state  = prompt.atlas;
    const auto & tokens = prompt.tokens.get_tokens();
    const auto   first  = tokens.data() + state.n_published;
    const auto   parent = parent_key(prompt);
    std::string  key    = atlas::memory_store::key_of(kind, parent, first, n_tokens);

    if (!atlas_setup.store->contains(key)) {
        memory_entry entry;
        entry.kind     = kind;
        entry.parent   = parent;
        entry.position = prompt.atlas.n_published;
        entry.tokens.assign(first, first + n_tokens);
        if (!read_range(ctx, id_slot, state.n_published, state.n_published + n_tokens, entry.data)) {
            state.is_tainted = true;
            return false;
        }
        atlas_setup.store->put(std::move(entry), state.tail, state.root->limit(state.access));
        state.tail.clear();
    }
    add_to_session(state, 0, key, state.n_published + n_tokens);
    if (kind == entry_kind::tail) {
        state.tail   = key;
        state.n_tail = n_tokens;
    } else {
        state.last_block = key;
        state.n_published += n_tokens;
        state.n_tail = 0;
    }
    return true;
}

// Publishes a checkpoint at n_tokens, which must not be before the end of the last published block.
static std::string publish_checkpoint(const server_prompt & prompt, size_t n_tokens, atlas::state_bytes data) {
    const auto & tokens = prompt.tokens.get_tokens();
    memory_entry entry;
    entry.kind     = entry_kind::checkpoint;
    entry.parent   = parent_key(prompt);
    entry.position = prompt.atlas.n_published;
    entry.tokens.assign(tokens.begin() + prompt.atlas.n_published, tokens.begin() + n_tokens);
    entry.data = std::move(data);
    return atlas_setup.store->put(std::move(entry), "", prompt.atlas.root->limit(prompt.atlas.access));
}

// Publishes those checkpoints of stock's own that lie between the last published block and the next.
static void publish_stock_checkpoints(server_prompt & prompt, size_t block_tokens) {
    if (!atlas_setup.needs_checkpoint() || atlas_setup.parts == state_class::whole_only) {
        return;
    }
    auto &        state = prompt.atlas;
    const int64_t begin = state.n_published;
    const int64_t end   = std::min(state.n_published + block_tokens, prompt.tokens.size() + 1);
    for (const auto & checkpoint : prompt.checkpoints) {
        const int64_t n_tokens  = checkpoint.n_tokens;
        const auto &  done      = state.checkpoints;
        const bool    is_beyond = checkpoint.pos_max >= n_tokens; // its state
        if (n_tokens >= begin && n_tokens < end && !is_beyond && !checkpoint.data_tgt.empty() &&
            std::find(done.begin(), done.end(), n_tokens) == done.end()) {
            publish_checkpoint(prompt, n_tokens, {checkpoint.data_tgt.begin(), checkpoint.data_tgt.end()});
            state.checkpoints.push_back(n_tokens);
        }
    }
}

static void publish_tip(llama_context * ctx, int id_slot, server_prompt & prompt) {
    if (!atlas_setup.needs_checkpoint()) {
        return;
    }
    const auto         flags = atlas_setup.checkpoint_flags();
    atlas::state_bytes data(llama_state_seq_get_size_ext(ctx, id_slot, flags));
    if (!data.empty() && llama_state_seq_get_data_ext(ctx, data.data(), data.size(), id_slot, flags) == data.size()) {
        const size_t n_tokens = prompt.tokens.size();
        const auto   key      = publish_checkpoint(prompt, n_tokens, std::move(data));
        add_to_session(prompt.atlas, prompt.atlas.n_tail > 0 ? 1 : 0, key, n_tokens);
    }
}

bool atlas_is_clean(const server_prompt & prompt) { return !prompt.atlas.is_tainted && !prompt.tokens.has_moved; }

bool atlas_memory_wants_checkpoint(size_t n_prompt, size_t n_tokens) {
    if (!atlas_memory_active() || !atlas_setup.needs_checkpoint() || n_tokens == 0 || n_tokens >= n_prompt) {
        return false;
    }
    const size_t n_left = n_prompt - n_tokens;
    return n_left == CHECKPOINT_BEFORE_END || n_tokens % CHECKPOINT_SPACING == 0 ||
           (n_left == STOCK_BEFORE_END && atlas_setup.parts == state_class::whole_only);
}

static void publish_parts(llama_context * ctx, int id_slot, server_prompt & prompt, size_t n_prompt,
                          int64_t deadline_us) {
    auto &       state    = prompt.atlas;
    const size_t n_tokens = prompt.tokens.size();
    if (!atlas_memory_active() || !atlas_is_clean(prompt) || state.is_unwanted || prompt.tokens.has_mtmd ||
        n_tokens == 0) {
        return;
    }
    follow_root(state);
    if (state.n_published + state.n_tail == n_tokens) {
        return;
    }
    // after a failed batch the slot names tokens that have no cells
    if (llama_memory_seq_pos_max(llama_get_memory(ctx), id_slot) != (llama_pos) n_tokens - 1) {
        return;
    }
    const bool   is_idle      = n_prompt == 0;
    const bool   is_wanted    = atlas_memory_wants_checkpoint(n_prompt, n_tokens);
    const size_t block_tokens = atlas_setup.store->options().block_tokens;
    while (true) {
        publish_stock_checkpoints(prompt, block_tokens);
        if (state.n_published + block_tokens > n_tokens) {
            break;
        }
        if (!publish_range(ctx, id_slot, prompt, entry_kind::block, block_tokens)) {
            return;
        }
        if (!is_wanted && ggml_time_us() > deadline_us) {
            return;
        }
    }
    const size_t n_tail = n_tokens - state.n_published;
    if (is_idle && n_tail > 0 && !publish_range(ctx, id_slot, prompt, entry_kind::tail, n_tail)) {
        return;
    }
    if (is_idle || is_wanted) {
        publish_tip(ctx, id_slot, prompt);
    }
}

// A conversation that there is no memory to copy is not kept for now; the slot's next task tries again.
static void publish_until(llama_context * ctx, int id_slot, server_prompt & prompt, size_t n_prompt,
                          int64_t deadline_us) {
    try {
        publish_parts(ctx, id_slot, prompt, n_prompt, deadline_us);
    } catch (const std::bad_alloc &) {
        prompt.atlas.is_unwanted = true;
        atlas::logf(
            atlas::LogLevel::WARN,
            "slot %d: the rest of its conversation is not kept: no memory for a copy; lower --atlas-l1-cache-size",
            id_slot);
    }
}

void atlas_memory_publish_all(llama_context * ctx, int id_slot, server_prompt & prompt) {
    publish_until(ctx, id_slot, prompt, 0, NO_DEADLINE);
}

void atlas_memory_publish_answer(llama_context * ctx, int id_slot, server_prompt & prompt) {
    publish_until(ctx, id_slot, prompt, 0, ggml_time_us() + ATLAS_PUBLISH_BUDGET_US);
}

bool atlas_is_exact(const server_prompt & prompt, int64_t n_tokens) { return prompt.atlas.n_exact == n_tokens; }

// Set and called by the thread that runs the loop.
static std::function<void()> & at_end() {
    static std::function<void()> publish;
    return publish;
}

void atlas_at_end(std::function<void()> publish) { at_end() = std::move(publish); }

void atlas_end_loop() {
    if (const auto publish = std::exchange(at_end(), nullptr)) {
        publish();
    }
}

atlas_publish_pass::atlas_publish_pass(bool is_busy)
    : is_busy(is_busy), answering(atlas_memory_active() ? atlas_active()->published().begin_pass() : 0),
      is_urgent(atlas_memory_active() && atlas_active()->published().is_urgent()),
      deadline_us(is_busy ? ggml_time_us() + ATLAS_PUBLISH_BUDGET_US : NO_DEADLINE) {}

atlas_publish_pass::~atlas_publish_pass() {
    if (atlas_memory_active()) {
        atlas_setup.store->set_busy(is_busy);
        atlas_active()->published().end_pass(answering, !is_behind, !is_busy);
    }
}

void atlas_publish_pass::publish(llama_context * ctx, int id_slot, server_prompt & prompt, size_t n_prompt) const {
    const bool    is_idle    = n_prompt == 0;
    const int64_t until_us   = is_idle && is_urgent ? NO_DEADLINE : deadline_us;
    const size_t  n_finished = prompt.atlas.n_published + prompt.atlas.n_tail;
    if (is_idle) {
        atlas_cells_give_back(id_slot);
    }
    publish_until(ctx, id_slot, prompt, n_prompt, until_us);
    is_behind |= is_idle && prompt.atlas.n_published + prompt.atlas.n_tail != n_finished && ggml_time_us() > until_us;
}
