// The seams in llama-server: all that its patched sources call, each in one line. server-common.h includes this.
//
// With LLAMA_ATLAS they are the functions that the headers below describe. Without it they are nothing, or what upstream has
// in their place, so that llama-server is as if it had not been patched.
#pragma once

#ifdef LLAMA_ATLAS

#include "atlas-authenticate.h"
#include "atlas-history.h"
#include "atlas-http-guard.h"
#include "atlas-llama-server.h"
#include "atlas-lookup-result.hpp"
#include "atlas-posting.h"
#include "atlas-prompt-state.h"
#include "atlas-slot-files.h"
#include "atlas-slots.h"

// Slot files are read and written by ours wherever llama-server does it.
#define llama_state_seq_load_file atlas_load_slot_file
// The slot is at hand where it is saved.
#define llama_state_seq_save_file(ctx, path, seq_id, tokens, n_tokens)                                                 \
    atlas_save_slot_file(ctx, path, seq_id, tokens, n_tokens, slot->prompt)

#else

namespace atlas {
struct lookup_result;
}

struct atlas_prompt_state {};

struct atlas_posting {
    template <typename T> void begin(T &) {}
    template <typename T> void hold_back(T &) {}
    template <typename T> void post_next(T &) {}
};

struct atlas_server {
    template <typename... T> bool start(T &&...) { return true; }
    template <typename... T> void add_routes(T &&...) {}
    template <typename... T> void ready(T &&...) {}
    static void                   stop() {}
};

// server.cpp
#define atlas_call(handler, req)                     (handler)(req)
#define atlas_defer_from_signal(handler, end_models) (handler)
#define atlas_prepare_options()

// server-http.cpp
#define atlas_is_known_key(keys, presented)  (std::find((keys).begin(), (keys).end(), presented) != (keys).end())
#define atlas_is_public(path)                false
#define atlas_keeps_header(req, name, value) true
#define atlas_owns_error(req, res)           ((void) (req), false)
#define atlas_refuse_page(req, res)          false

// server-models.cpp
#define atlas_end_without_destructors()

// server-queue.cpp, server-stream.cpp
#define atlas_is_streamed(req)        true
#define atlas_own_name(headers, name) (name)
#define atlas_refuse_at_end(running)
#define atlas_result_at_end() nullptr
#define atlas_wakes(tasks)    false

// server-context.cpp
#define atlas_admit(res, req, data)
#define atlas_adopt(prompt, loaded)
#define atlas_at_end(write_back)
#define atlas_before_launch(ctx, slots, slot, task, loaded)
#define atlas_choose_slot(ctx, slots, task, loaded, otherwise) get_available_slot(task)
#define atlas_is_restored_at(prompt, n_tokens)                 false
#define atlas_memory_open(params, ctx, ctx_draft)
#define atlas_memory_write_back_all(ctx, id_slot, prompt)
#define atlas_memory_write_back_answer(ctx, id_slot, prompt, task)
#define atlas_memory_wants_checkpoint(prompt, n_prompt) false
#define atlas_on_result(request, result, json, is_last)
#define atlas_on_results(request, results, json, type)
#define atlas_parse_body(req) json::parse((req).body)
#define atlas_write_back_slots(ctx, slots, ...)
#define atlas_put_history(req, body) (body)
#define atlas_set_asleep(is_so, slots)

#endif // LLAMA_ATLAS
