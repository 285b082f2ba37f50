#include "atlas-draft.h"

#include "atlas-fingerprint.hpp"
#include "atlas-log.hpp"
#include "atlas-memory-setup.h"
#include "atlas-positions.hpp"
#include "atlas-prompt-tokens.h"
#include "atlas-state-layout.hpp"
#include "build-info.h"
#include "common.h"
#include "hash/hash.h"
#include "server-common.h"
#include "server-task.h"
#include "speculative.h"
#include "src/llama-ext.h"

#include <algorithm>
#include <string>
#include <vector>

using atlas::memory_match;
using atlas::sequence_state;
using atlas::state_part;

static const loaded_draft * draft_of(const loaded_memory * memory) {
    return memory && memory->draft.ctx ? &memory->draft : nullptr;
}

//
// describing
//

static bool has_type(const common_params & params, common_speculative_type type) {
    const auto & types = params.speculative.types;
    return std::find(types.begin(), types.end(), type) != types.end();
}

// Those that compute something, others look tokens up.
static std::string types_of(const common_params & params) {
    std::string text;
    for (const auto type :
         {COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE, COMMON_SPECULATIVE_TYPE_DRAFT_EAGLE3, COMMON_SPECULATIVE_TYPE_DRAFT_MTP,
          COMMON_SPECULATIVE_TYPE_DRAFT_DFLASH, COMMON_SPECULATIVE_TYPE_DRAFT_DSPARK}) {
        text += has_type(params, type) ? " " + common_speculative_type_to_str(type) : "";
    }
    return text;
}

std::vector<std::string> atlas_draft_files(const common_params & params) {
    const auto & path = params.speculative.draft.mparams.path;
    return path.empty() ? std::vector<std::string>() : atlas::model_files(path);
}

loaded_draft atlas_describe_draft(const common_params & params, llama_context * target, llama_context * draft,
                                  size_t n_first, atlas::model_memory & model) {
    loaded_draft made;
    // Gemma 4's head reads the target's cells, and has none
    const bool is_shared =
        has_type(params, COMMON_SPECULATIVE_TYPE_DRAFT_MTP) && draft != nullptr && llama_get_ctx_other(draft) == target;
    if (draft == nullptr || is_shared || !llama_get_memory(draft)) {
        return made;
    }
    const auto probed = atlas::probe_state(draft, params.swa_full);
    if (!probed) {
        atlas::log(atlas::LogLevel::WARN, "The state of what drafts tokens is not kept: it could not decode a token");
        return made;
    }
    model.set_layout(probed->layout, state_part::draft);
    model.store.expect_entries_up_to(probed->entry_bytes(model.store.options().block_tokens));
    made.ctx          = draft;
    made.reads_tokens = has_type(params, COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE);
    made.n_behind     = has_type(params, COMMON_SPECULATIVE_TYPE_DRAFT_EAGLE3) ? 1 : 0;

    // by what it is computed does not count, as it decides no answer
    const common_params            with        = common_base_params_to_speculative(params);
    const atlas::model_description description = {"", llama_build_info(), common_context_params_to_llama(with),
                                                  with.kv_overrides};
    const std::string              settings =
        types_of(params) + " " +
        atlas::fingerprint_settings(description, draft, model.store.options().block_tokens, probed->layout);
    for (size_t i = 0; i < atlas_draft_files(params).size(); i++) {
        made.name += " " + std::to_string(n_first + i) + ":draft";
    }
    made.name += " draft:" + hash_sha256_hex(settings.data(), settings.size());
    return made;
}

//
// finding
//

void atlas_find_draft(atlas::lookup_result & lookup, const llama_token * tokens) {
    const auto & draft = atlas_loaded_memory()->draft;
    auto &       model = atlas_loaded_memory()->model;
    if (draft.name.empty() || lookup.match.n_tokens <= draft.n_behind) {
        return;
    }
    const auto   layout = model.layout(state_part::draft);
    const auto & root   = *model.root();
    auto         access = lookup.access;
    access.rewind       = layout.rewind();
    // without patience: it would wait for what was found of the target
    lookup.draft =
        model.store.find(root.of(lookup.lineage + draft.name), tokens, lookup.match.n_tokens - draft.n_behind,
                         layout.needs_checkpoint(), root.limit(access));
}

//
// restoring
//

static void clear(const loaded_draft & draft, int id_slot, server_prompt & prompt) {
    llama_memory_seq_rm(llama_get_memory(draft.ctx), id_slot, -1, -1);
    prompt.atlas.draft            = {};
    prompt.atlas.draft.is_inexact = false;
}

void atlas_forget_draft(int id_slot, server_prompt & prompt) {
    if (const auto * draft = draft_of(atlas_loaded_memory())) {
        clear(*draft, id_slot, prompt);
    }
}

static bool decode(llama_context * ctx, common_batch & batch) {
    return batch.size() == 0 || llama_process(ctx, LLAMA_PROCESS_TYPE_DECODE, batch.get()) == 0;
}

// Computes the tokens [begin, end), of which none is an image or sound.
static bool compute(const loaded_draft & draft, int id_slot, const server_tokens & tokens, size_t begin, size_t end) {
    common_batch batch(draft.ctx);
    llama_pos    pos = tokens.pos_next((int64_t) begin);
    for (size_t i = begin; i < end; i++) {
        batch.add(tokens[i], pos++, id_slot, i + 1 == end);
    }
    return decode(draft.ctx, batch);
}

// EAGLE-3 has a cell only once the next token is known, and needs what the target said of the last one for it. That is gone: it
// gets zeros for this one.
static bool bridge(const loaded_draft & draft, int id_slot, const server_tokens & tokens, size_t n_tokens) {
    if (n_tokens >= tokens.size() || tokens[n_tokens] == LLAMA_TOKEN_NULL || tokens[n_tokens - 1] == LLAMA_TOKEN_NULL) {
        return false;
    }
    const std::vector<float> zeros(llama_model_n_embd(llama_get_model(draft.ctx)));
    common_batch             batch(draft.ctx);
    const int32_t            at = batch.add(tokens[n_tokens], tokens.pos_next((int64_t) n_tokens) - 1, id_slot, false);
    batch.set_embd(at, {zeros.data(), 1, zeros.size()});
    return decode(draft.ctx, batch);
}

// Where the tokens [begin, end) begin that can be computed in one batch.
static size_t first_of_batch(const loaded_draft & draft, const server_tokens & tokens, size_t begin, size_t end) {
    const size_t n_batch = llama_n_batch(draft.ctx);
    size_t       first   = end - begin > n_batch ? end - n_batch : begin;
    for (size_t i = end; i > first; i--) {
        if (tokens[i - 1] == LLAMA_TOKEN_NULL) {
            return i;
        }
    }
    return first;
}

void atlas_restore_draft(int id_slot, server_prompt & prompt, const server_tokens & tokens, const memory_match & match,
                         size_t n_tokens) {
    const auto * draft = draft_of(atlas_loaded_memory());
    if (draft == nullptr) {
        return;
    }
    auto &       record = prompt.atlas.draft;
    const size_t wanted = n_tokens - std::min(n_tokens, draft->n_behind);
    clear(*draft, id_slot, prompt);

    size_t has = 0, found = match.n_tokens;
    if (found > 0 && found < wanted &&
        (!draft->reads_tokens || first_of_batch(*draft, tokens, found, wanted) > found)) {
        found = 0; // there would be a gap
    }
    auto & model = atlas_loaded_memory()->model;
    if (found > 0 && model.cells.has_room(draft->ctx, id_slot, found)) {
        const llama_pos last = atlas::position_of(atlas_media_of(tokens), found - 1);
        if (sequence_state(model, draft->ctx, id_slot, record, state_part::draft).restore(match, last, false)) {
            has = found;
        } else {
            clear(*draft, id_slot, prompt);
        }
    }
    const size_t restored = has;
    if (draft->reads_tokens && has < wanted) {
        const size_t first = first_of_batch(*draft, tokens, has, wanted);
        if (compute(*draft, id_slot, tokens, first, wanted)) {
            record.is_inexact = first > has;
            has               = wanted;
        }
    } else if (draft->n_behind > 0 && has == wanted && !bridge(*draft, id_slot, tokens, n_tokens)) {
        has = 0;
    }
    if (has < wanted) {
        clear(*draft, id_slot, prompt);
        record.is_inexact = true;
    }
    atlas::logf(atlas::LogLevel::INFO, "slot %d: %zu of %zu tokens of the draft restored%s", id_slot, restored, wanted,
                record.is_inexact ? ", it has not all" : "");
}

void atlas_settle_draft(int id_slot, server_prompt & prompt, size_t n_tokens) {
    const auto * draft = draft_of(atlas_loaded_memory());
    if (draft == nullptr || n_tokens == 0) {
        return;
    }
    const auto media = atlas_media_of(prompt.tokens);
    if (!draft->reads_tokens && !media.empty()) {
        return; // upstream leaves gaps where images are
    }
    const llama_pos last     = llama_memory_seq_pos_max(llama_get_memory(draft->ctx), id_slot);
    const bool      is_empty = last < 0 && !draft->reads_tokens; // and stays so
    if (!is_empty && last + (llama_pos) draft->n_behind < atlas::position_of(media, n_tokens - 1)) {
        atlas_restore_draft(id_slot, prompt, prompt.tokens, {}, n_tokens);
    }
}

bool atlas_lacks_draft(const server_prompt & prompt) {
    return draft_of(atlas_loaded_memory()) != nullptr && prompt.atlas.draft.is_inexact;
}

//
// writing back
//

// How many of the slot's tokens it could be captured for.
static size_t count_exact(const server_prompt & prompt) {
    const auto * draft = draft_of(atlas_loaded_memory());
    return draft == nullptr || prompt.atlas.draft.is_inexact || prompt.tokens.size() <= draft->n_behind
               ? 0
               : prompt.tokens.size() - draft->n_behind;
}

bool atlas_capture_draft(int id_slot, server_prompt & prompt, const atlas::sequence_content & target,
                         const atlas::capture_limits & limits) {
    const auto * draft    = draft_of(atlas_loaded_memory());
    auto &       record   = prompt.atlas.draft;
    const size_t n_tokens = count_exact(prompt);
    if (n_tokens == 0) {
        return true;
    }
    if (!draft->reads_tokens && !target.media.empty()) {
        record.is_inexact = true; // upstream gives it no images, so it has no cells there
        return true;
    }
    auto & model  = atlas_loaded_memory()->model;
    record.access = prompt.atlas.access;
    if (!record.access.session_id.empty()) {
        record.access.session_id = atlas::draft_session(record.access.session_id);
    }
    const std::string       lineage = target.lineage + draft->name;
    atlas::sequence_content of      = {target.tokens, n_tokens, lineage, {}, target.media, target.first};
    if (model.layout(state_part::draft).needs_checkpoint()) {
        for (const auto & made : prompt.checkpoints) {
            of.checkpoints.push_back({made.n_tokens, made.pos_max, made.data_dft.data(), made.data_dft.size()});
        }
    }
    return sequence_state(model, draft->ctx, id_slot, record, state_part::draft).capture(of, limits);
}

bool atlas_draft_has_more(const server_prompt & prompt) {
    const auto & record = prompt.atlas.draft;
    return count_exact(prompt) > 0 && (record.root != atlas_loaded_memory()->model.root() ||
                                       record.n_written_back + record.n_tail != count_exact(prompt));
}

size_t atlas_begin_of_draft(const server_prompt & prompt) {
    const auto & record = prompt.atlas.draft;
    return count_exact(prompt) == 0                             ? prompt.tokens.size()
           : record.root == atlas_loaded_memory()->model.root() ? record.n_written_back
                                                                : 0;
}

bool atlas_is_draft_kept(const server_prompt & prompt) {
    return count_exact(prompt) == 0 ||
           atlas::is_kept(atlas_loaded_memory()->model, prompt.atlas.draft, count_exact(prompt));
}
