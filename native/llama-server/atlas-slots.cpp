#include "atlas-slots.h"

#include "atlas-fingerprint.h"
#include "atlas-llama-server.h"
#include "atlas-log.hpp"
#include "atlas-runtime.hpp"
#include "atlas-unit-cost.hpp"
#include "common.h"
#include "llama.h"
#include "server-common.h"
#include "server-http.h"
#include "server-task.h"
#include "src/llama-ext.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

using atlas::entry_kind;
using atlas::memory_entry;
using atlas::restore_result;

// What the state of a sequence consists of, after KV_BLOCKS: found out by asking for the sizes of its parts.
enum class state_class {
    ranges,          // plain KV, MLA: blocks hold everything
    ranges_and_rest, // SWA, hybrid: blocks hold the part that can be cut, a checkpoint the rest
    rest_only,       // recurrent: a checkpoint holds everything
    whole_only,      // cannot be cut: a checkpoint of the whole state
};

// Fewer tokens than this are sooner computed than looked up.
static const size_t MIN_GAIN_TOKENS = 16;

// Where checkpoints are kept besides stock's own (at user messages and near the end of a prompt): so far before the end
// that a changed last line still finds one, and along a long prompt. Each costs a batch that ends there.
static const size_t CHECKPOINT_BEFORE_END = 32;
static const size_t CHECKPOINT_SPACING    = 2048;

static const int64_t NO_DEADLINE = std::numeric_limits<int64_t>::max();

// Set once the model is loaded; read by HTTP threads afterwards.
struct memory_setup {
    atlas::memory_store * store = nullptr;
    std::string           root;
    state_class           parts       = state_class::ranges;
    size_t                token_bytes = 0; // of a token's state in a block

    bool                  needs_checkpoint() const { return parts != state_class::ranges; }
    llama_state_seq_flags checkpoint_flags() const {
        return parts == state_class::whole_only ? LLAMA_STATE_SEQ_FLAGS_NONE : LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY;
    }
};

static memory_setup setup;

// State, from buffers into the context.
static atlas::transfer_cost copying;

bool atlas_memory_active() { return setup.store != nullptr; }

//
// opening
//

// Decodes one token and asks for the sizes of the parts of its state. Leaves the context empty.
static bool find_state_class(llama_context * ctx) {
    const llama_vocab * vocab = llama_model_get_vocab(llama_get_model(ctx));
    llama_token         token = std::max<llama_token>(0, llama_vocab_bos(vocab));
    if (llama_decode(ctx, llama_batch_get_one(&token, 1)) != 0) {
        return false;
    }
    const size_t all    = llama_state_seq_get_data_range(ctx, nullptr, 0, 0, 0, 1, LLAMA_STATE_SEQ_FLAGS_NONE);
    const size_t ranges = llama_state_seq_get_data_range(ctx, nullptr, 0, 0, 0, 1, LLAMA_STATE_SEQ_FLAGS_NON_PARTIAL);
    if (all == 0) {
        setup.parts = state_class::whole_only;
    } else if (ranges == 0) {
        setup.parts = state_class::rest_only;
    } else {
        setup.parts = all > ranges ? state_class::ranges_and_rest : state_class::ranges;
    }
    setup.token_bytes = ranges;
    llama_memory_clear(llama_get_memory(ctx), true);
    llama_synchronize(ctx);
    llama_perf_context_reset(ctx);
    return true;
}

static std::string why_unsupported(const common_params & params, const llama_context * ctx, bool has_draft) {
    char architecture[64] = "";
    llama_model_meta_val_str(llama_get_model(ctx), "general.architecture", architecture, sizeof(architecture));
    if (std::string(architecture) == "cogvlm") {
        return "upstream computes cogvlm otherwise in one batch than in several, so that reused state changes answers";
    }
    if (params.embedding) {
        return "the server embeds, it does not generate";
    }
    if (has_draft) {
        return "a draft model or speculative decoding is used";
    }
    if (!params.lora_adapters.empty()) {
        return "LoRA adapters are loaded";
    }
    if (!params.mmproj.path.empty()) {
        return "a multimodal projector is loaded";
    }
    return "";
}

void atlas_memory_open(common_params & params, llama_context * ctx, bool has_draft) {
    auto & runtime = atlas_active();
    if (!runtime || runtime->memory() == nullptr) {
        return;
    }
    if (atlas_memory_active()) {
        // the model comes back after the server slept: it is the same, and HTTP threads may be reading the setup
        params.cache_ram_mib = 0;
        return;
    }
    std::string problem = why_unsupported(params, ctx, has_draft);
    if (problem.empty() && !llama_get_memory(ctx)) {
        problem = "the model has no memory that could be kept";
    }
    if (problem.empty() && !find_state_class(ctx)) {
        problem = "the model could not decode a single token";
    }
    if (problem.empty()) {
        setup.store = runtime->memory();
        setup.root  = atlas_fingerprint(params, ctx, setup.store->options().block_tokens, setup.needs_checkpoint());
        setup.store->expect_blocks_of(setup.token_bytes * setup.store->options().block_tokens);
        // the memory keeps what stock's prompt cache would, and not twice
        params.cache_ram_mib = 0;
    }
    runtime->set_memory_root(setup.root, problem);
}

//
// finding
//

void atlas_memory_find(server_task & task, const server_http_req & req) {
    const bool wanted = task.type == SERVER_TASK_TYPE_COMPLETION || task.type == SERVER_TASK_TYPE_INFILL;
    if (!atlas_memory_active() || !wanted) {
        return;
    }
    task.memory   = std::make_shared<atlas::memory_ticket>();
    auto & ticket = *task.memory;
    if (req.atlas) {
        req.atlas->set_ticket(task.memory);
        ticket.session_id       = req.atlas->options().session_id.value_or("");
        ticket.access.strategy  = req.atlas->options().strategy;
        ticket.access.max_layer = req.atlas->options().memory_layers.value_or(ticket.access.max_layer);
    }
    ticket.access.seconds_per_token = atlas_active()->prefill.seconds_per_unit();
    if (!task.params.cache_prompt) {
        ticket.result = restore_result::not_wanted;
    } else if (task.tokens.has_mtmd) {
        ticket.result = restore_result::media;
    } else if (task.tokens.size() <= MIN_GAIN_TOKENS) {
        ticket.result = restore_result::below_break_even;
    } else {
        // one token at least is computed, for its logits
        const auto & tokens = task.tokens.get_tokens();
        ticket.match =
            setup.store->find(setup.root, tokens.data(), tokens.size() - 1, setup.needs_checkpoint(), ticket.access);
        if (ticket.match.is_dear) {
            ticket.result = restore_result::below_break_even;
        }
    }
}

//
// restoring
//

// How many of the common tokens stock would reuse without us: what it does when the task starts, foretold.
static size_t count_reusable(llama_context * ctx, int id_slot, const server_prompt & prompt, size_t common) {
    if (!setup.needs_checkpoint() || common == prompt.tokens.size()) {
        return common;
    }
    const llama_pos n_swa   = llama_model_n_swa(llama_get_model(ctx));
    const llama_pos pos_min = llama_memory_seq_pos_min(llama_get_memory(ctx), id_slot);
    if (pos_min < std::max<llama_pos>(0, (llama_pos) common - n_swa)) {
        return common;
    }
    size_t reusable = 0;
    for (const auto & checkpoint : prompt.checkpoints) {
        if (checkpoint.n_tokens <= (int64_t) common) {
            reusable = std::max<size_t>(reusable, checkpoint.n_tokens);
        }
    }
    return reusable;
}

double atlas_slot_cost(llama_context * ctx, int id_slot, const server_prompt & prompt, int64_t last_used,
                       const server_task & task) {
    static const double COPIED      = 0.02; // a token that is copied, of one that is computed
    static const double HALF_LIFE_S = 600;  // of the chance that somebody comes back

    const size_t common  = prompt.tokens.get_common_prefix(task.tokens);
    const double has     = count_reusable(ctx, id_slot, prompt, common);
    const double known   = task.memory ? task.memory->match.n_tokens : 0;
    const double to_copy = known > has ? known : 0;
    const double lost    = (double) prompt.tokens.size() - (double) common;
    const double idle_s  = (double) (ggml_time_us() - last_used) / 1e6;
    const double returns = last_used < 0 ? 0 : std::exp2(-idle_s / HALF_LIFE_S);
    return (double) task.tokens.size() - std::max(has, known) + COPIED * (to_copy + lost * returns);
}

// Cells that no sequence uses: a failed restore may leave a context that only a restart repairs, so it is not tried.
static bool has_room(llama_context * ctx, int id_slot, size_t n_tokens) {
    const uint32_t n_seq   = llama_n_seq_max(ctx);
    const bool     unified = llama_n_ctx_seq(ctx) == llama_n_ctx(ctx) && n_seq > 1;
    size_t         used    = 0;
    for (uint32_t seq = 0; unified && seq < n_seq; seq++) {
        const llama_pos last = llama_memory_seq_pos_max(llama_get_memory(ctx), seq);
        used += (int) seq == id_slot ? 0 : (size_t) (last + 1);
    }
    return used + n_tokens <= llama_n_ctx_seq(ctx);
}

// Puts the state of the match into the empty sequence. Returns whether it is exactly that after match.n_tokens tokens.
static bool rebuild(llama_context * ctx, int id_slot, const atlas::memory_match & match) {
    const auto            memory = llama_get_memory(ctx);
    const llama_pos       end    = match.n_tokens;
    const size_t          block  = setup.store->options().block_tokens;
    llama_pos             pos    = 0;
    llama_state_seq_flags flags  = LLAMA_STATE_SEQ_FLAGS_NON_PARTIAL | LLAMA_STATE_SEQ_FLAGS_APPEND;
    for (const auto & entry : match.blocks) {
        pos += entry->kind == entry_kind::block ? block : entry->tokens.size();
        if (!entry->data.empty() && llama_state_seq_set_data_ext(ctx, entry->data.data(), entry->data.size(), id_slot,
                                                                 flags) != entry->data.size()) {
            return false;
        }
    }
    if (pos > end && setup.parts != state_class::rest_only && setup.parts != state_class::whole_only &&
        !llama_memory_seq_rm(memory, id_slot, end, -1)) {
        return false;
    }
    if (match.checkpoint) {
        const auto & data = match.checkpoint->data;
        if (llama_state_seq_set_data_ext(ctx, data.data(), data.size(), id_slot, setup.checkpoint_flags()) !=
            data.size()) {
            return false;
        }
    }
    return llama_memory_seq_pos_max(memory, id_slot) == end - 1;
}

static void forget(llama_context * ctx, int id_slot, server_prompt & prompt) {
    llama_memory_seq_rm(llama_get_memory(ctx), id_slot, -1, -1);
    prompt.clear();
}

static void set_prompt(llama_context * ctx, int id_slot, server_prompt & prompt, const server_task & task,
                       const atlas::memory_match & match) {
    const auto & tokens = task.tokens.get_tokens();
    prompt.tokens.insert(llama_tokens(tokens.begin(), tokens.begin() + match.n_tokens));
    prompt.atlas.n_exact = match.n_tokens;
    if (!match.blocks.empty() && match.blocks.back()->kind == entry_kind::tail) {
        prompt.atlas.tail = match.blocks.back()->key;
    }
    if (match.checkpoint && setup.parts != state_class::whole_only) {
        auto & checkpoint = prompt.checkpoints.emplace_back();
        checkpoint.update_pos(match.n_tokens, llama_memory_seq_pos_min(llama_get_memory(ctx), id_slot),
                              (llama_pos) match.n_tokens - 1);
        checkpoint.data_tgt.assign(match.checkpoint->data.begin(), match.checkpoint->data.end());
    }
}

static double count_bytes(const atlas::memory_match & match) {
    double bytes = match.checkpoint ? match.checkpoint->data.size() : 0;
    for (const auto & entry : match.blocks) {
        bytes += entry->data.size();
    }
    return bytes;
}

static void log_result(int id_slot, const atlas::memory_ticket & ticket, size_t n_tokens) {
    const char * name = atlas::RESTORE_RESULT_NAMES[static_cast<size_t>(ticket.result)];
    switch (ticket.result) {
        case restore_result::restored:
            atlas::logf(atlas::LogLevel::INFO, "slot %d: restored %zu tokens from layer %d in %.1f ms", id_slot,
                        n_tokens, ticket.layer, ticket.restore_ms);
            break;
        case restore_result::no_room:
        case restore_result::failed:
            atlas::logf(atlas::LogLevel::WARN, "slot %d: %zu tokens were found but not restored: %s", id_slot, n_tokens,
                        name);
            break;
        default: atlas::logf(atlas::LogLevel::DEBUG, "slot %d: nothing restored: %s", id_slot, name);
    }
}

void atlas_memory_restore(llama_context * ctx, int id_slot, server_prompt & prompt, server_task & task) {
    if (!atlas_memory_active()) {
        return;
    }
    atlas_active()->published().on_launch();
    atlas_memory_publish_all(ctx, id_slot, prompt);

    // the task may leave the slot's tokens at any point, so what is published is found anew from the start; the tail is
    // superseded only by what continues it
    size_t             common = prompt.tokens.get_common_prefix(task.tokens);
    atlas_prompt_state fresh;
    // a few tokens are no reason to go on with tainted state, or the slot would never be clean again
    if (prompt.atlas.is_tainted && common < MIN_GAIN_TOKENS) {
        forget(ctx, id_slot, prompt);
        common = 0;
    }
    fresh.is_tainted  = prompt.atlas.is_tainted;
    fresh.is_unwanted = !task.params.cache_prompt;
    if (common >= prompt.atlas.n_published + prompt.atlas.n_tail) {
        fresh.tail = prompt.atlas.tail;
    }
    prompt.atlas = fresh;

    if (!task.memory) {
        return;
    }
    auto &     ticket = *task.memory;
    const auto match  = std::exchange(ticket.match, {});
    if (match.n_tokens > 0) {
        const int64_t began  = ggml_time_us();
        const size_t  has    = count_reusable(ctx, id_slot, prompt, common);
        const double  n_gain = (double) match.n_tokens - (double) has;
        const double  bytes  = count_bytes(match);
        if (match.n_tokens < MIN_GAIN_TOKENS) {
            ticket.result = match.is_dear ? ticket.result : restore_result::no_match;
        } else if (n_gain < MIN_GAIN_TOKENS) {
            ticket.result = restore_result::slot_has_it;
        } else if (copying.is_dear(bytes, n_gain * ticket.access.seconds_per_token)) {
            ticket.result = restore_result::below_break_even;
        } else if (!has_room(ctx, id_slot, match.n_tokens)) {
            ticket.result = restore_result::no_room;
        } else {
            forget(ctx, id_slot, prompt);
            if (rebuild(ctx, id_slot, match)) {
                set_prompt(ctx, id_slot, prompt, task, match);
                ticket.result     = restore_result::restored;
                ticket.layer      = match.layer;
                ticket.restore_ms = (ggml_time_us() - began) / 1000.0;
                copying.add(ticket.restore_ms / 1000, bytes);
            } else {
                forget(ctx, id_slot, prompt);
                ticket.result = restore_result::failed;
            }
        }
    }
    // not before: a slot that was emptied has forgotten whose it is
    prompt.atlas.access     = ticket.access;
    prompt.atlas.session_id = ticket.session_id;
    atlas_active()->count_restore(ticket.result);
    log_result(id_slot, ticket, match.n_tokens);
}

//
// publishing
//

// The state of tokens [p0, p1) of a sequence; empty when the memory has no such part. Returns false when cells are missing.
static bool read_range(llama_context * ctx, int id_slot, llama_pos p0, llama_pos p1, atlas::state_bytes & data) {
    data.clear();
    if (setup.parts == state_class::rest_only || setup.parts == state_class::whole_only) {
        return true;
    }
    const auto   flags = LLAMA_STATE_SEQ_FLAGS_NON_PARTIAL;
    const size_t size  = llama_state_seq_get_data_range(ctx, nullptr, 0, id_slot, p0, p1, flags);
    data.resize(size);
    if (size == 0 || llama_state_seq_get_data_range(ctx, data.data(), size, id_slot, p0, p1, flags) != size) {
        return false;
    }
    // gaps are not reported: the number of cells stands behind the magic, the sequence and the number of streams
    uint32_t n_cells = 0;
    std::memcpy(&n_cells, data.data() + 12, sizeof(n_cells));
    return n_cells == (uint32_t) (p1 - p0);
}

// What the next entry of the slot's conversation is chained to.
static const std::string & parent_key(const server_prompt & prompt) {
    return prompt.atlas.last_block.empty() ? setup.root : prompt.atlas.last_block;
}

// Tells to which session what was published belongs. n_behind: the entries of the session behind its last block.
static void add_to_session(const atlas_prompt_state & state, size_t n_behind, const std::string & key,
                           size_t n_tokens) {
    if (!state.session_id.empty()) {
        const size_t n_blocks = state.n_published / setup.store->options().block_tokens;
        setup.store->extend_session(state.session_id, n_blocks + n_behind, key, n_tokens);
    }
}

// Publishes the n_tokens tokens behind the last published block. Returns false when the slot has no such state.
static bool publish_range(llama_context * ctx, int id_slot, server_prompt & prompt, entry_kind kind, size_t n_tokens) {
    auto &       state  = prompt.atlas;
    const auto & tokens = prompt.tokens.get_tokens();
    const auto   first  = tokens.data() + state.n_published;
    const auto & parent = parent_key(prompt);
    std::string  key    = atlas::memory_store::key_of(kind, parent, first, n_tokens);

    if (!setup.store->contains(key)) {
        memory_entry entry;
        entry.kind     = kind;
        entry.parent   = parent;
        entry.position = prompt.atlas.n_published;
        entry.tokens.assign(first, first + n_tokens);
        if (!read_range(ctx, id_slot, state.n_published, state.n_published + n_tokens, entry.data)) {
            state.is_tainted = true;
            return false;
        }
        setup.store->put(std::move(entry), state.tail, state.access);
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
    return setup.store->put(std::move(entry), "", prompt.atlas.access);
}

// Publishes those checkpoints of stock's own that lie between the last published block and the next.
static void publish_stock_checkpoints(server_prompt & prompt, size_t block_tokens) {
    if (!setup.needs_checkpoint() || setup.parts == state_class::whole_only) {
        return;
    }
    auto &        state = prompt.atlas;
    const int64_t begin = state.n_published;
    const int64_t end   = std::min(state.n_published + block_tokens, prompt.tokens.size() + 1);
    for (const auto & checkpoint : prompt.checkpoints) {
        const int64_t n_tokens = checkpoint.n_tokens;
        if (n_tokens > state.n_checkpoint && n_tokens >= begin && n_tokens < end && !checkpoint.data_tgt.empty()) {
            publish_checkpoint(prompt, n_tokens, {checkpoint.data_tgt.begin(), checkpoint.data_tgt.end()});
            state.n_checkpoint = n_tokens;
        }
    }
}

static void publish_tip(llama_context * ctx, int id_slot, server_prompt & prompt) {
    if (!setup.needs_checkpoint()) {
        return;
    }
    const auto         flags = setup.checkpoint_flags();
    atlas::state_bytes data(llama_state_seq_get_size_ext(ctx, id_slot, flags));
    if (!data.empty() && llama_state_seq_get_data_ext(ctx, data.data(), data.size(), id_slot, flags) == data.size()) {
        const size_t n_tokens = prompt.tokens.size();
        const auto   key      = publish_checkpoint(prompt, n_tokens, std::move(data));
        add_to_session(prompt.atlas, prompt.atlas.n_tail > 0 ? 1 : 0, key, n_tokens);
    }
}

bool atlas_memory_wants_checkpoint(size_t n_prompt, size_t n_tokens) {
    return atlas_memory_active() && setup.needs_checkpoint() && n_tokens > 0 && n_tokens < n_prompt &&
           (n_prompt - n_tokens == CHECKPOINT_BEFORE_END || n_tokens % CHECKPOINT_SPACING == 0);
}

static void publish_until(llama_context * ctx, int id_slot, server_prompt & prompt, size_t n_prompt,
                          int64_t deadline_us) {
    auto &       state    = prompt.atlas;
    const size_t n_tokens = prompt.tokens.size();
    if (!atlas_memory_active() || state.is_tainted || state.is_unwanted || prompt.tokens.has_mtmd || n_tokens == 0 ||
        state.n_published + state.n_tail == n_tokens) {
        return;
    }
    // after a failed batch the slot names tokens that have no cells
    if (llama_memory_seq_pos_max(llama_get_memory(ctx), id_slot) != (llama_pos) n_tokens - 1) {
        return;
    }
    const bool   is_idle      = n_prompt == 0;
    const bool   is_wanted    = atlas_memory_wants_checkpoint(n_prompt, n_tokens);
    const size_t block_tokens = setup.store->options().block_tokens;
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

void atlas_memory_publish_all(llama_context * ctx, int id_slot, server_prompt & prompt) {
    publish_until(ctx, id_slot, prompt, 0, NO_DEADLINE);
}

void atlas_memory_publish_answer(llama_context * ctx, int id_slot, server_prompt & prompt) {
    publish_until(ctx, id_slot, prompt, 0, ggml_time_us() + ATLAS_PUBLISH_BUDGET_US);
}

atlas_publish_pass::atlas_publish_pass(bool is_busy)
    : is_busy(is_busy), answering(atlas_memory_active() ? atlas_active()->published().begin_pass() : 0),
      is_asked(atlas_memory_active() && atlas_active()->published().is_asked()),
      deadline_us(is_busy ? ggml_time_us() + ATLAS_PUBLISH_BUDGET_US : NO_DEADLINE) {}

atlas_publish_pass::~atlas_publish_pass() {
    if (atlas_memory_active()) {
        setup.store->set_busy(is_busy);
        atlas_active()->published().end_pass(answering, !is_busy);
    }
}

void atlas_publish_pass::publish(llama_context * ctx, int id_slot, server_prompt & prompt, size_t n_prompt) const {
    publish_until(ctx, id_slot, prompt, n_prompt, n_prompt == 0 && is_asked ? NO_DEADLINE : deadline_us);
}
