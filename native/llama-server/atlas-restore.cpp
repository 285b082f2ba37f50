#include "atlas-gateway.hpp"
#include "atlas-llama-server.h"
#include "atlas-log.hpp"
#include "atlas-memory-setup.h"
#include "atlas-runtime.hpp"
#include "atlas-slots.h"
#include "atlas-unit-cost.hpp"
#include "server-common.h"
#include "server-http.h"
#include "server-task.h"

#include <algorithm>
#include <cmath>
#include <new>
#include <utility>

using atlas::entry_kind;
using atlas::restore_result;

// State, from buffers into the context.
static atlas::transfer_cost copying;

//
// finding
//

// The ticket says whose the task is and what it may use; its tokens are looked up.
static void find(server_task & task) {
    auto & ticket = *task.memory;
    if (!task.params.cache_prompt) {
        ticket.result = restore_result::not_wanted;
    } else if (task.tokens.has_mtmd) {
        ticket.result = restore_result::media;
    } else if (task.tokens.size() <= ATLAS_MIN_GAIN_TOKENS) {
        ticket.result = restore_result::below_break_even;
    } else {
        // one token at least is computed, for its logits
        const auto & tokens = task.tokens.get_tokens();
        ticket.match = atlas_setup.store->find(atlas_setup.root_of(ticket.tenant), tokens.data(), tokens.size() - 1,
                                               atlas_setup.needs_checkpoint(), ticket.access);
        if (ticket.match.is_dear) {
            ticket.result = restore_result::below_break_even;
        }
    }
}

static void find_for(server_task & task, const server_http_req & req) {
    const bool wanted = task.type == SERVER_TASK_TYPE_COMPLETION || task.type == SERVER_TASK_TYPE_INFILL;
    if (!wanted || !req.atlas || (!atlas_memory_active() && req.atlas->tenant.empty())) {
        return;
    }
    const atlas::phase_timer timer(req.atlas.get(), atlas::request_phase::lookup);
    task.memory                     = std::make_shared<atlas::memory_ticket>();
    auto & ticket                   = *task.memory;
    ticket.tenant                   = req.atlas->tenant;
    ticket.access.session_id        = req.atlas->session;
    ticket.access.strategy          = req.atlas->options().strategy;
    ticket.access.max_layer         = req.atlas->options().memory_layers.value_or(ticket.access.max_layer);
    ticket.access.seconds_per_token = atlas_active()->prefill.seconds_per_unit();
    if (atlas_memory_active()) {
        req.atlas->set_ticket(task.memory);
        find(task);
    }
}

void atlas_memory_find(server_task & task, const server_http_req & req) {
    find_for(task, req);
    if (req.atlas && req.atlas->meter) {
        req.atlas->meter->add_prompt(task.memory, atlas::request::clock::now());
    }
}

void atlas_memory_find_like(server_task & task, const server_task & other) {
    if (!other.memory) {
        return;
    }
    task.memory         = std::make_shared<atlas::memory_ticket>();
    task.memory->tenant = other.memory->tenant;

    other.memory->next_choice = task.memory;

    task.memory->access = other.memory->access;
    if (atlas_memory_active()) {
        find(task);
    }
}

//
// restoring
//

// How many of the common tokens stock would reuse without us: what it does when the task starts, foretold.
static size_t count_reusable(llama_context * ctx, int id_slot, const server_prompt & prompt, size_t common) {
    if (!atlas_setup.needs_checkpoint() || common == prompt.tokens.size()) {
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

static bool is_unified(llama_context * ctx) {
    return llama_n_ctx_seq(ctx) == llama_n_ctx(ctx) && llama_n_seq_max(ctx) > 1;
}

// Cells that no sequence uses: a failed restore may leave a context that only a restart repairs, so it is not tried.
static bool has_room(llama_context * ctx, int id_slot, size_t n_tokens) {
    const uint32_t n_seq = is_unified(ctx) ? llama_n_seq_max(ctx) : 0;
    size_t         used  = 0;
    for (uint32_t seq = 0; seq < n_seq; seq++) {
        const llama_pos last = llama_memory_seq_pos_max(llama_get_memory(ctx), seq);
        used += (int) seq == id_slot ? 0 : (size_t) (last + 1);
    }
    return used + n_tokens <= llama_n_ctx_seq(ctx);
}

bool atlas_memory_may_clear(llama_context * ctx, const server_prompt & prompt, int id_slot, const server_task & task) {
    const auto & state = prompt.atlas;
    const size_t kept  = state.n_published + state.n_tail;
    if (!atlas_memory_active() || state.is_tainted || kept == 0 || kept != prompt.tokens.size() ||
        !atlas_setup.store->contains(state.n_tail > 0 ? state.tail : state.last_block)) {
        return false;
    }
    return atlas_setup.clears_idle || (is_unified(ctx) && !has_room(ctx, id_slot, task.tokens.size()));
}

// Puts the state of the match into the empty sequence. Returns whether it is exactly that after match.n_tokens tokens.
static bool rebuild(llama_context * ctx, int id_slot, const atlas::memory_match & match) {
    const auto            memory = llama_get_memory(ctx);
    const llama_pos       end    = match.n_tokens;
    const size_t          block  = atlas_setup.store->options().block_tokens;
    llama_pos             pos    = 0;
    llama_state_seq_flags flags  = LLAMA_STATE_SEQ_FLAGS_NON_PARTIAL | LLAMA_STATE_SEQ_FLAGS_APPEND;
    for (const auto & entry : match.blocks) {
        pos += entry->kind == entry_kind::block ? block : entry->tokens.size();
        if (!entry->data.empty() && llama_state_seq_set_data_ext(ctx, entry->data.data(), entry->data.size(), id_slot,
                                                                 flags) != entry->data.size()) {
            return false;
        }
    }
    if (pos > end && atlas_setup.parts != state_class::rest_only && atlas_setup.parts != state_class::whole_only &&
        !llama_memory_seq_rm(memory, id_slot, end, -1)) {
        return false;
    }
    if (match.checkpoint) {
        const auto & data = match.checkpoint->data;
        if (llama_state_seq_set_data_ext(ctx, data.data(), data.size(), id_slot, atlas_setup.checkpoint_flags()) !=
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
    if (match.checkpoint && atlas_setup.parts != state_class::whole_only) {
        auto & checkpoint = prompt.checkpoints.emplace_back();
        checkpoint.update_pos(match.n_tokens, llama_memory_seq_pos_min(llama_get_memory(ctx), id_slot),
                              (llama_pos) match.n_tokens - 1);
        checkpoint.data_tgt.assign(match.checkpoint->data.begin(), match.checkpoint->data.end());
    }
}

// Returns false, with the slot in any state, where that did not succeed.
static bool put_back(llama_context * ctx, int id_slot, server_prompt & prompt, const server_task & task,
                     const atlas::memory_match & match) {
    try {
        if (!rebuild(ctx, id_slot, match)) {
            return false;
        }
        set_prompt(ctx, id_slot, prompt, task, match);
        return true;
    } catch (const std::bad_alloc &) {
        return false;
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
    if (!atlas_active()) {
        return;
    }
    const std::string tenant = task.memory ? task.memory->tenant : "";
    if (atlas_memory_active()) {
        atlas_active()->published().on_launch();
        SRV_TRC("slot %d: updating prompt cache\n", id_slot); // as stock, whose tests look for it
        atlas_memory_publish_all(ctx, id_slot, prompt);
    }
    if (atlas_active()->gate().has_tenants() && prompt.atlas.tenant != tenant) {
        forget(ctx, id_slot, prompt);
    }
    prompt.atlas.tenant = tenant;
    if (!atlas_memory_active()) {
        return;
    }

    // the task may leave the slot's tokens at any point, so what is published is found anew from the start; the tail is
    // superseded only by what continues it
    size_t             common = prompt.tokens.get_common_prefix(task.tokens);
    atlas_prompt_state fresh;
    // a few tokens are no reason to go on with tainted state, or the slot would never be clean again
    if (prompt.atlas.is_tainted && common < ATLAS_MIN_GAIN_TOKENS) {
        forget(ctx, id_slot, prompt);
        common = 0;
    }
    fresh.tenant      = tenant;
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
        if (match.n_tokens < ATLAS_MIN_GAIN_TOKENS) {
            ticket.result = match.is_dear ? ticket.result : restore_result::no_match;
        } else if (n_gain < ATLAS_MIN_GAIN_TOKENS) {
            ticket.result = restore_result::slot_has_it;
        } else if (copying.is_dear(bytes, n_gain * ticket.access.seconds_per_token)) {
            ticket.result = restore_result::below_break_even;
        } else if (!has_room(ctx, id_slot, match.n_tokens)) {
            ticket.result = restore_result::no_room;
        } else {
            forget(ctx, id_slot, prompt);
            if (put_back(ctx, id_slot, prompt, task, match)) {
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
    prompt.atlas.tenant = tenant;
    prompt.atlas.access = ticket.access;
    atlas_active()->count_restore(ticket);
    log_result(id_slot, ticket, match.n_tokens);
}
