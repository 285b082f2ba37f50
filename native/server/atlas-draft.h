// What drafts tokens for the target model: a model of its own, or a head that reads the target's hidden states (MTP, EAGLE-3,
// DFlash, DSpark). Its state is kept beside the target's, under a root of its own, in blocks of the same tokens. It decides how
// many tokens are drafted well, never what is answered, so a slot that lacks it goes on without.
#pragma once

#ifdef LLAMA_ATLAS

#include "atlas-lookup-result.hpp"
#include "atlas-sequence-state.hpp"
#include "llama.h"

#include <cstddef>
#include <string>
#include <vector>

struct common_params;
struct server_prompt;
struct server_task;
struct server_tokens;

struct loaded_draft {
    llama_context * ctx = nullptr; // the loop's; null: nothing drafts, or its cells are the target's
    std::string     name; // added to a lineage: its state is kept under that; empty: none is kept
    bool            reads_tokens = false; // its state follows from the tokens, else from hidden states of the target
    size_t          n_behind     = 0; // it has so many tokens less than the target; 1: each needs the one after it
};

// The files of the draft model, in order; none where the target's drafts.
std::vector<std::string> atlas_draft_files(const common_params & params);

// Of what common_speculative_init() uses, after it. n_first: the number of the first of its files, for memory_root::of(). Sets
// the layout of its state in the model. Where a draft cannot be kept, ctx stays null and the log says why.
loaded_draft atlas_describe_draft(const common_params & params, llama_context * target, llama_context * draft,
                                  size_t n_first, atlas::model_memory & model);

// HTTP thread: looks up what there is of the draft for what was found of the target. tokens: those that were looked up.
void atlas_find_draft(atlas::lookup_result & lookup, const llama_token * tokens);

// All below are the loop's.

// The slot was emptied, so is the draft's part of it.
void atlas_forget_draft(int id_slot, server_prompt & prompt);

// Makes the draft's part of the slot that of the first n_tokens, which the target's part has, out of the match. Where that has
// not as many, a draft model computes the rest, one batch at most; if that is not enough, it has the last tokens alone. A head
// starts with none. Throws std::bad_alloc.
void atlas_restore_draft(int id_slot, server_prompt & prompt, const server_tokens & tokens,
                         const atlas::memory_match & match, size_t n_tokens);

// Before a task is launched that goes on from the first n_tokens of what the slot holds: where the draft's part lacks some at
// their end, as after a slot file was loaded, it is made anew. Upstream would end with an error.
void atlas_settle_draft(int id_slot, server_prompt & prompt, size_t n_tokens);

// Whether something drafts, and has not all of what the slot holds.
bool atlas_lacks_draft(const server_prompt & prompt);

// As sequence_state::capture(), of the draft's part. target: what the target's part is.
bool atlas_capture_draft(int id_slot, server_prompt & prompt, const atlas::sequence_content & target,
                         const atlas::capture_limits & limits);

// Whether that would look at its state, and from which token on.
bool   atlas_draft_has_more(const server_prompt & prompt);
size_t atlas_begin_of_draft(const server_prompt & prompt);

// Whether the memory has the draft's part of the slot, or could not keep it.
bool atlas_is_draft_kept(const server_prompt & prompt);

#endif // LLAMA_ATLAS
