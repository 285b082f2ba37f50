#include "atlas-exact-prompt.h"
#include "atlas-llama-server.h"
#include "atlas-log.hpp"
#include "atlas-memory-setup.h"
#include "atlas-prompt-tokens.h"
#include "atlas-runtime.hpp"
#include "atlas-sequence-state.hpp"
#include "atlas-slots.h"
#include "server-common.h"
#include "server-task.h"

#include <algorithm>
#include <limits>
#include <new>

// Where checkpoints are kept besides stock's own (at user messages and near the end of a prompt), and where prompts part: so
// far before the end that a changed last line still finds one, or, in a prompt of some length, another last message; and along
// a long prompt. Each costs a batch that ends there.
static const size_t CHECKPOINT_BEFORE_END     = 32;
static const size_t CHECKPOINT_BEFORE_MESSAGE = 128;
static const size_t CHECKPOINT_SPACING        = 2048;
static const size_t LONG_PROMPT               = 512;

// Stock's own last checkpoint of a prompt. It is a part of the state, and so of no use where only the whole will do.
static const size_t STOCK_BEFORE_END = 4;

static const int64_t NO_DEADLINE = std::numeric_limits<int64_t>::max();

bool atlas_is_prefill_exact(const server_prompt & prompt) {
    return !prompt.atlas.is_inexact && prompt.tokens.n_prefilled >= prompt.tokens.size();
}

bool atlas_memory_wants_checkpoint(const server_prompt & prompt, size_t n_prompt) {
    const size_t n_tokens = prompt.tokens.size();
    if (!atlas_memory_active() || n_tokens == 0 || n_tokens >= n_prompt) {
        return false;
    }
    const auto & model  = atlas_loaded_memory()->model;
    const auto   layout = model.layout();
    const size_t n_left = n_prompt - n_tokens;
    return (layout.needs_checkpoint() || model.layout(atlas::state_part::draft).needs_checkpoint()) &&
           (n_left == CHECKPOINT_BEFORE_END || (n_left == CHECKPOINT_BEFORE_MESSAGE && n_prompt >= LONG_PROMPT) ||
            n_tokens % CHECKPOINT_SPACING == 0 || n_tokens == prompt.atlas.parts_at ||
            (n_left == STOCK_BEFORE_END && layout.parts == atlas::state_class::whole_only));
}

// Returns false when something is left for another time.
static bool write_back_parts(llama_context * ctx, int id_slot, server_prompt & prompt, size_t n_prompt,
                             int64_t deadline_us, bool is_interruptible) {
    const size_t n_tokens  = prompt.tokens.size();
    const bool   is_asleep = ctx == nullptr; // what was not taken before is gone
    if (is_asleep || !atlas_memory_active() || !atlas_is_prefill_exact(prompt) || prompt.atlas.is_unwanted ||
        n_tokens == 0) {
        return true;
    }
    auto &                memory = atlas_loaded_memory()->model;
    atlas::sequence_state sequence(memory, ctx, id_slot, prompt.atlas);
    if (!sequence.has_more(n_tokens) && !atlas_draft_has_more(prompt)) {
        return true;
    }
    const size_t              first = std::min(sequence.begin_of_rest(), atlas_begin_of_draft(prompt));
    const atlas_prompt_tokens tokens(prompt.tokens, *atlas_loaded_memory(), first);
    if (tokens.size() == 0) {
        return true;
    }
    atlas::sequence_content of = {tokens.data(), n_tokens, prompt.tokens.lineage, {}, tokens.spans(), first};
    if (memory.layout().needs_checkpoint()) {
        for (const auto & made : prompt.checkpoints) {
            of.checkpoints.push_back({made.n_tokens, made.pos_max, made.data_tgt.data(), made.data_tgt.size()});
        }
    }
    atlas::capture_limits limits = {n_prompt == 0, atlas_memory_wants_checkpoint(prompt, n_prompt), deadline_us,
                                    n_tokens < n_prompt};
    if (is_interruptible) {
        limits.is_called_away = [] { return atlas_active()->write_backs().is_called_away(); };
    }
    // first, as a draft that has less than the target is of little use after a crash
    const bool is_draft_through = atlas_capture_draft(id_slot, prompt, of, limits);
    return sequence.capture(of, limits) && is_draft_through;
}

// A conversation that there is no memory to copy is not kept for now; the slot's next task tries again.
static bool write_back_until(llama_context * ctx, int id_slot, server_prompt & prompt, size_t n_prompt,
                             int64_t deadline_us, bool is_interruptible = false) {
    try {
        return write_back_parts(ctx, id_slot, prompt, n_prompt, deadline_us, is_interruptible);
    } catch (const std::bad_alloc &) {
        prompt.atlas.is_unwanted = true;
        atlas::logf(
            atlas::LogLevel::WARN,
            "slot %d: the rest of its conversation is not kept: no memory for a copy; lower --atlas-l1-cache-size",
            id_slot);
        return true;
    }
}

void atlas_memory_write_back_all(llama_context * ctx, int id_slot, server_prompt & prompt) {
    write_back_until(ctx, id_slot, prompt, 0, NO_DEADLINE);
}

void atlas_memory_write_back_answer(llama_context * ctx, int id_slot, server_prompt & prompt,
                                    const server_task & task) {
    atlas_leave_answer(task, prompt);
    write_back_until(ctx, id_slot, prompt, 0, ggml_time_us() + ATLAS_WRITE_BACK_BUDGET_US);
}

bool atlas_is_restored_at(const server_prompt & prompt, int64_t n_tokens) {
    return prompt.atlas.restored_at == n_tokens;
}

atlas_write_back_pass::atlas_write_back_pass(bool is_busy)
    : is_busy(is_busy), answering(atlas_memory_active() ? atlas_active()->write_backs().begin_pass() : 0),
      is_urgent(atlas_memory_active() && atlas_active()->write_backs().is_urgent()),
      deadline_us(is_busy ? ggml_time_us() + ATLAS_WRITE_BACK_BUDGET_US : NO_DEADLINE) {}

atlas_write_back_pass::~atlas_write_back_pass() {
    if (atlas_memory_active()) {
        atlas_loaded_memory()->model.store.set_busy(is_busy);
        atlas_active()->write_backs().end_pass(answering, !is_behind, !is_busy);
    }
}

// Says which slots compute what is not kept, once each time.
static void note_exactness(loaded_memory & memory, int id_slot, const server_prompt & prompt) {
    auto &     known      = memory.inexact_slots;
    const bool is_inexact = !prompt.tokens.empty() && !atlas_is_prefill_exact(prompt);
    known.resize(std::max(known.size(), (size_t) id_slot + 1));
    if (known[id_slot] != is_inexact) {
        known[id_slot] = is_inexact;
        atlas_active()->write_backs().set_inexact(std::count(known.begin(), known.end(), true));
        atlas::logf(atlas::LogLevel::INFO, "slot %d: %s", id_slot,
                    is_inexact ? "its state was not computed from the beginning as it is now: it is not kept until a "
                                 "prompt goes on from before that"
                               : "its state is kept again");
    }
}

void atlas_write_back_pass::write_back(llama_context * ctx, int id_slot, server_prompt & prompt,
                                       size_t n_prompt) const {
    const bool    is_idle    = n_prompt == 0;
    const bool    has_no_end = is_idle && is_urgent;
    const int64_t until_us   = has_no_end ? NO_DEADLINE : deadline_us;
    if (atlas_memory_active()) {
        note_exactness(*atlas_loaded_memory(), id_slot, prompt);
        if (is_idle) {
            atlas_loaded_memory()->model.cells.give_back(id_slot);
        }
    }
    const bool is_through = write_back_until(ctx, id_slot, prompt, n_prompt, until_us, !has_no_end);
    is_behind |= is_idle && !is_through;
}
