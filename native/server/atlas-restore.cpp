#include "atlas-agents.h"
#include "atlas-fetch.h"
#include "atlas-lineage.h"
#include "atlas-llama-server.h"
#include "atlas-log.hpp"
#include "atlas-memory-setup.h"
#include "atlas-prompt-tokens.h"
#include "atlas-request-admission.hpp"
#include "atlas-runtime.hpp"
#include "atlas-sequence-state.hpp"
#include "atlas-server-state.h"
#include "atlas-slots.h"
#include "server-common.h"
#include "server-http.h"
#include "server-task.h"

#include <algorithm>
#include <new>
#include <string>
#include <utility>

using atlas::MIN_GAIN_TOKENS;
using atlas::restore_result;
using atlas::sequence_state;
using atlas::SHARED_TIER;
using atlas::state_class;
using atlas::state_part;

//
// finding
//

// The lookup result says whose the task is and what it may use; its tokens are looked up.
static void find(server_task & task, const atlas::lookup_patience & patience, const server_http_req * req = nullptr) {
    auto & lookup = *task.memory;
    if (!task.params.cache_prompt) {
        lookup.result = restore_result::not_wanted;
    } else if (task.tokens.size() <= MIN_GAIN_TOKENS) {
        lookup.result = restore_result::below_break_even;
    } else if (const atlas_prompt_tokens tokens(task.tokens, *atlas_loaded_memory()); tokens.size() == 0) {
        lookup.result = restore_result::media;
    } else {
        // one token at least is computed, for its logits
        auto &       memory  = atlas_loaded_memory()->model;
        const auto   layout  = memory.layout();
        const auto & root    = *memory.root();
        const auto   fetched = req ? atlas_fetch_for(task, *req) : atlas::fetch_result();
        lookup.access.rewind = layout.rewind();
        lookup.match         = memory.store.find(root.of(lookup.lineage), tokens.data(), tokens.size() - 1,
                                                 layout.needs_checkpoint(), root.limit(lookup.access), patience);
        lookup.match.cut(tokens.boundary(lookup.match.n_tokens));
        if (fetched.n_entries > 0 && lookup.match.n_tokens > fetched.n_before) {
            lookup.match.tier = fetched.tier;
        }
        atlas_find_draft(lookup, tokens.data());
        if (lookup.match.is_refused) {
            lookup.result = restore_result::too_many_at_once;
        } else if (lookup.match.is_too_slow || (fetched.is_too_slow && lookup.match.n_tokens == 0)) {
            lookup.result = restore_result::below_break_even;
        }
    }
}

static void find_for(server_task & task, const server_http_req & req) {
    const bool wanted = task.type == SERVER_TASK_TYPE_COMPLETION || task.type == SERVER_TASK_TYPE_INFILL;
    if (!wanted || !req.atlas || (!atlas_memory_active() && req.atlas->tenant.empty())) {
        return;
    }
    const atlas::phase_timer timer(req.atlas.get(), atlas::request_phase::lookup);
    atlas_active()->write_backs().on_arrival();
    task.memory   = std::make_shared<atlas::lookup_result>();
    auto & lookup = *task.memory;
    lookup.tenant = req.atlas->tenant;
    lookup.access = atlas_access_of(req);
    if (atlas_memory_active()) {
        lookup.lineage = atlas_lineage_of(lookup.tenant, atlas_state().adapters.now(), task.params.lora);
        atlas::lookup_patience patience;
        const bool             is_first = !req.atlas->has_lookup();
        // a request with several prompts holds what was found for the first: those behind would wait for itself
        if (is_first) {
            patience = {atlas_active()->config()->pool_timeout_ms / 1000, req.should_stop};
        }
        req.atlas->set_lookup(task.memory);
        lookup.wants_answer = is_first && req.atlas->keeps_answer;
        find(task, patience, &req);
        if (is_first) {
            atlas_note_moved(*req.atlas, task, lookup.match);
        }
        if (lookup.match.waited_s > 0) {
            atlas_active()->gate().add_wait(*req.atlas, atlas::request_wait::memory, atlas::request_phase::lookup,
                                            std::chrono::duration_cast<atlas::request::clock::duration>(
                                                std::chrono::duration<double>(lookup.match.waited_s)));
        }
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
    task.memory          = std::make_shared<atlas::lookup_result>();
    task.memory->tenant  = other.memory->tenant;
    task.memory->lineage = other.memory->lineage;

    other.memory->next_choice = task.memory;

    task.memory->access = other.memory->access;
    if (atlas_memory_active()) {
        find(task, {});
    }
}

//
// restoring
//

bool atlas_memory_may_clear(llama_context * ctx, const server_prompt & prompt, int id_slot, const server_task & task) {
    auto * loaded = atlas_loaded_memory();
    if (loaded == nullptr || !atlas_is_prefill_exact(prompt) ||
        !atlas::is_kept(loaded->model, prompt.atlas, prompt.tokens.size()) || !atlas_is_draft_kept(prompt)) {
        return false;
    }
    const bool may = loaded->clears_idle ||
                     (atlas::has_shared_cells(ctx) && !loaded->model.cells.has_room(ctx, id_slot, task.tokens.size()));
    if (may) { // upstream's tests look for the words
        SRV_DBG("%s", "__TEST_TAG_CACHE_IDLE_SLOT__\n");
    }
    return may;
}

// Whether the first n_tokens of what the slot holds are what a fresh prefill would give.
static bool is_exact_to(const server_prompt & prompt, size_t n_tokens) {
    return !prompt.atlas.is_inexact && prompt.tokens.n_prefilled >= n_tokens;
}

static void begin_anew(server_prompt & prompt) {
    prompt.atlas.is_inexact       = false;
    prompt.atlas.is_unwanted      = false;
    prompt.atlas.draft.is_inexact = false;
    prompt.tokens.n_prefilled     = SIZE_MAX;
}

static void forget(llama_context * ctx, int id_slot, server_prompt & prompt) {
    llama_memory_seq_rm(llama_get_memory(ctx), id_slot, -1, -1);
    prompt.clear();
    atlas_forget_draft(id_slot, prompt);
    begin_anew(prompt);
}

// Has the prompt say what the slot's state is now. last: the position of its last token.
static void set_prompt(llama_context * ctx, int id_slot, server_prompt & prompt, const server_task & task,
                       const atlas::memory_match & match, llama_pos last) {
    prompt.tokens.keep_first(std::min(prompt.tokens.size(), match.n_tokens));
    atlas_copy_tokens(prompt.tokens, task.tokens, match.n_tokens);
    prompt.checkpoints.remove_if([&](const auto & other) { return other.n_tokens >= (int64_t) match.n_tokens; });
    if (match.checkpoint && atlas_loaded_memory()->model.layout().parts != state_class::whole_only) {
        const llama_pos pos_min = llama_memory_seq_pos_min(llama_get_memory(ctx), id_slot);
        auto &          made    = prompt.checkpoints.emplace_back();
        // A window is all there is to have at this place, but upstream wants to see more than that; 0 is enough for it.
        // It then computes the last token anew. Recurrent state cannot do that, and is only at one place. One that reaches
        // beyond can be cut less far than others, and is not written back.
        made.update_pos(match.n_tokens, pos_min < last ? 0 : last, match.n_beyond > 0 ? last + 1 : last);
        made.data_tgt.assign(match.checkpoint->data.begin(), match.checkpoint->data.end());
        made.update_dft(atlas_loaded_memory()->draft.ctx, id_slot, LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY);
    }
}

// With is_begun the slot has all tokens of the match, and lacks only the state that cannot be rolled back to there. Returns
// false, with the slot in any state, where that did not succeed.
static bool put_back(llama_context * ctx, int id_slot, server_prompt & prompt, const server_task & task,
                     const atlas::memory_match & match, const atlas::memory_match & draft, bool is_begun) {
    auto &        memory = atlas_loaded_memory()->model;
    const int64_t began  = ggml_time_us();
    try {
        if (!is_begun) {
            forget(ctx, id_slot, prompt);
        }
        const llama_pos last = atlas::position_of(atlas_media_of(task.tokens), match.n_tokens - 1);
        if (!sequence_state(memory, ctx, id_slot, prompt.atlas).restore(match, last, is_begun)) {
            return false;
        }
        memory.copying.add((double) (ggml_time_us() - began) / 1e6, sequence_state::count_bytes(match, is_begun));
        if (!is_begun || memory.layout(state_part::draft).needs_checkpoint()) {
            atlas_restore_draft(id_slot, prompt, task.tokens, draft, match.n_tokens);
        }
        set_prompt(ctx, id_slot, prompt, task, match, last);
        return true;
    } catch (const std::bad_alloc &) {
        return false;
    }
}

static void log_result(int id_slot, const atlas::restore_outcome & how, size_t n_tokens) {
    const char * name = atlas::RESTORE_RESULT_NAMES[static_cast<size_t>(how.result)];
    switch (how.result) {
        case restore_result::restored:
            atlas::logf(atlas::LogLevel::INFO, "slot %d: restored %zu tokens from layer %d in %.1f ms", id_slot,
                        n_tokens, how.tier, how.restore_ms);
            break;
        case restore_result::no_room:
        case restore_result::failed:
            atlas::logf(atlas::LogLevel::WARN, "slot %d: %zu tokens were found but not restored: %s", id_slot, n_tokens,
                        name);
            break;
        default: atlas::logf(atlas::LogLevel::DEBUG, "slot %d: nothing restored: %s", id_slot, name);
    }
}

// Puts the match into the slot where that gains something over what the slot has.
static atlas::restore_outcome restore(llama_context * ctx, int id_slot, server_prompt & prompt,
                                      const server_task & task, const atlas::memory_match & match,
                                      const atlas::memory_match & draft, size_t common) {
    const auto &  lookup   = *task.memory;
    auto &        memory   = atlas_loaded_memory()->model;
    const int64_t began    = ggml_time_us();
    const size_t  has      = atlas_count_reusable(ctx, id_slot, prompt, task);
    const double  n_gain   = (double) match.n_tokens - (double) has;
    const bool    is_begun = match.n_tokens <= common && is_exact_to(prompt, match.n_tokens) &&
                             memory.layout().parts != state_class::whole_only;
    const double  bytes    = sequence_state::count_bytes(match, is_begun);
    // state of the memory takes the place of as much that is not exact: what is computed behind it can be kept
    const bool   heals   = !is_exact_to(prompt, has);
    const double n_saved = heals ? (double) match.n_tokens : n_gain;

    atlas::restore_outcome how = {lookup.result, 0, 0};
    if (n_gain < (heals ? 0 : MIN_GAIN_TOKENS) || match.n_tokens < MIN_GAIN_TOKENS) {
        if (has >= MIN_GAIN_TOKENS && (match.n_tokens >= MIN_GAIN_TOKENS || how.result == restore_result::no_match)) {
            how.result = restore_result::slot_has_it;
        }
    } else if (memory.copying.is_too_slow(bytes, n_saved * lookup.access.seconds_per_token)) {
        how.result = restore_result::below_break_even;
    } else if (!is_begun && !memory.cells.has_room(ctx, id_slot, match.n_tokens)) {
        // a failed restore may leave a context that only a restart repairs, so it is not tried
        how.result = restore_result::no_room;
    } else if (put_back(ctx, id_slot, prompt, task, match, draft, is_begun)) {
        how = {restore_result::restored, match.tier, (ggml_time_us() - began) / 1000.0};
    } else {
        forget(ctx, id_slot, prompt);
        how.result = restore_result::failed;
    }
    return how;
}

// Upstream leaves a checkpoint whose last token is beyond what the task has in common with the slot, and would go on from
// it at the place of that token. A window is right up to there; recurrent state has the token in it.
static void cut_checkpoints(server_prompt & prompt, size_t common) {
    prompt.checkpoints.remove_if([&](auto & checkpoint) {
        const bool is_beyond    = checkpoint.n_tokens > (int64_t) common;
        const bool is_recurrent = checkpoint.pos_min == checkpoint.pos_max;
        checkpoint.n_tokens     = std::min<int64_t>(checkpoint.n_tokens, common);
        return is_beyond &&
               (is_recurrent || common == 0 || checkpoint.pos_max > prompt.tokens.pos_next((int64_t) common));
    });
}

// The tail that goes on being superseded; empty where the task leaves the slot's tokens before its end.
static std::string tail_before(const atlas::sequence_record & record, size_t common) {
    return common >= record.n_written_back + record.n_tail ? record.tail : "";
}

// Whether what the slot holds may be captured after the task as well as before it: where a block takes long to copy, and the
// task goes on from most of it. Upstream saves a slot to its prompt cache only where less than half of it stays, too.
static bool is_left_for_later(const server_prompt & prompt, const server_task & task) {
    return atlas_loaded_memory()->model.capturing().is_long() && prompt.tokens.lineage == task.tokens.lineage &&
           2 * prompt.tokens.get_common_prefix(task.tokens) >= prompt.tokens.size();
}

static void prepare(llama_context * ctx, int id_slot, server_prompt & prompt, server_task & task) {
    if (atlas_memory_active()) {
        atlas_active()->write_backs().on_launch();
        SRV_TRC("slot %d: updating prompt cache\n", id_slot); // as stock, whose tests look for it
        if (!is_left_for_later(prompt, task)) {
            atlas_memory_write_back_all(ctx, id_slot, prompt);
        }
    }
    if (prompt.tokens.lineage != task.tokens.lineage) {
        forget(ctx, id_slot, prompt);
        prompt.tokens.lineage = task.tokens.lineage;
    }
    if (!atlas_memory_active()) {
        return;
    }
    atlas_loaded_memory()->model.cells.take(id_slot, atlas_cells_needed(ctx, task));

    // the task may leave the slot's tokens at any point, so what is written back is found anew from the start; the tail
    // is superseded only by what continues it
    size_t             common = prompt.tokens.get_common_prefix(task.tokens);
    atlas_prompt_state fresh;
    // a few tokens are no reason to go on with tainted state, or the slot would never be clean again
    if (prompt.tokens.empty()) {
        begin_anew(prompt);
    } else if ((!is_exact_to(prompt, common) || atlas_lacks_draft(prompt)) && common < MIN_GAIN_TOKENS) {
        forget(ctx, id_slot, prompt);
        common = 0;
    }
    fresh.is_inexact       = prompt.atlas.is_inexact;
    fresh.is_unwanted      = !task.params.cache_prompt;
    fresh.draft.is_inexact = prompt.atlas.draft.is_inexact;
    fresh.tail             = tail_before(prompt.atlas, common);
    fresh.draft.tail       = tail_before(prompt.atlas.draft, common);
    prompt.atlas           = fresh;
    cut_checkpoints(prompt, common);

    if (task.memory) {
        const auto match    = std::exchange(task.memory->match, {});
        const auto draft    = std::exchange(task.memory->draft, {});
        const auto how      = restore(ctx, id_slot, prompt, task, match, draft, common);
        prompt.atlas.access = task.memory->access; // not before: a slot that was emptied has forgotten it
        // the next one that parts there finds a checkpoint
        const size_t parts_at = std::max(match.n_known, common);
        if (task.params.cache_prompt &&
            parts_at >= atlas_count_reusable(ctx, id_slot, prompt, task) + MIN_GAIN_TOKENS) {
            prompt.atlas.parts_at = parts_at;
        }
        task.memory->set_outcome(how);
        atlas_active()->count_restore(how);
        log_result(id_slot, how, match.n_tokens);
    }
    atlas_settle_draft(id_slot, prompt, atlas_count_reusable(ctx, id_slot, prompt, task));
}

void atlas_memory_restore(llama_context * ctx, int id_slot, server_prompt & prompt, server_task & task) {
    if (atlas_active()) {
        prepare(ctx, id_slot, prompt, task);
        prompt.atlas.is_inexact |= atlas_begins_later(task);
    }
}
