#include "atlas-memory-setup.h"

#include "atlas-fingerprint.hpp"
#include "atlas-llama-server.h"
#include "atlas-request-admission.hpp"
#include "atlas-runtime.hpp"
#include "atlas-server-state.h"
#include "atlas-slots.h"
#include "atlas-state-proof.hpp"
#include "build-info.h"
#include "common.h"
#include "server-common.h"

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

loaded_memory * atlas_loaded_memory() { return atlas_state().memory.get(); }

bool atlas_memory_active() { return atlas_loaded_memory() != nullptr; }

static std::string why_unsupported(const common_params & params, const llama_context * ctx) {
    char architecture[64] = "";
    llama_model_meta_val_str(llama_get_model(ctx), "general.architecture", architecture, sizeof(architecture));
    if (std::string(architecture) == "cogvlm") {
        return "upstream computes cogvlm otherwise in one batch than in several, so that reused state changes answers";
    }
    if (params.embedding) {
        return "the server embeds, it does not generate";
    }
    return "";
}

std::string loaded_memory::encoder() const {
    const std::string hash = model.root()->hash_of(projector);
    return hash.empty() ? "" : hash + encoding;
}

// What changes the pictures that the projector is given. Upstream names a video's by the file and a number alone.
static std::string encoding_of(const common_params & params) {
    return " tokens=" + std::to_string(params.image_min_tokens) + "," + std::to_string(params.image_max_tokens) +
           " fps=" + std::to_string(params.video_fps);
}

static atlas::model_description describe(const common_params & params) {
    atlas::model_description model = {params.model.path, llama_build_info(), common_context_params_to_llama(params),
                                      params.kv_overrides};
    for (const auto & vector : params.control_vectors) {
        model.vectors.push_back({vector.fname, vector.strength});
    }
    for (const auto & adapter : params.lora_adapters) {
        model.adapters.push_back(adapter.path);
    }
    if (!params.mmproj.path.empty()) {
        model.adapters.push_back(params.mmproj.path);
    }
    for (const auto & file : atlas_draft_files(params)) {
        model.adapters.push_back(file);
    }
    model.vectors_first = params.control_vector_layer_start;
    model.vectors_last  = params.control_vector_layer_end;
    return model;
}

// Of all who may ask, those without a key and those with each, under the adapters that the server has set.
static std::vector<std::string> all_lineages(const atlas_server_state & state, const common_params & params) {
    const auto               adapters = state.adapters.now();
    std::vector<std::string> lineages = {atlas_lineage_of("", adapters, {})};
    for (const std::string & key : params.api_keys) {
        lineages.push_back(atlas_lineage_of(state.runtime->gate().who().identify(key).tenant, adapters, {}));
    }
    return lineages;
}

// The memory keeps what stock's prompt cache would, and not twice.
static void take_the_place_of_the_prompt_cache(common_params & params) {
    params.cache_ram_mib    = 0;
    params.cache_idle_slots = false;
}

// What state of those who name no adapters was computed under besides the model, as llama-server puts it in force.
static bool put_in_force(llama_context * ctx, const common_params & params) {
    if (!params.control_vectors.empty()) {
        const auto all = common_control_vector_load(params.control_vectors);
        if (all.n_embd < 0 ||
            llama_set_adapter_cvec(ctx, all.data.data(), all.data.size(), all.n_embd, params.control_vector_layer_start,
                                   params.control_vector_layer_end) != 0) {
            return false;
        }
    }
    auto adapters = params.lora_adapters;
    for (auto & each : adapters) { // one that begins in the middle of a prompt has no part in what comes before
        each.scale = llama_adapter_get_alora_n_invocation_tokens(each.ptr) > 0 ? 0 : each.scale;
    }
    common_set_adapter_lora(ctx, adapters);
    return true;
}

static atlas::proof_context context_to_try(const common_params & params, const llama_context * ctx) {
    return {const_cast<llama_model *>(llama_get_model(ctx)), common_context_params_to_llama(params),
            llama_n_ctx_seq(ctx), [params](llama_context * made) { return put_in_force(made, params); }};
}

// After the server slept the draft is another object, and its name the same.
static void set_draft(const common_params & params, llama_context * ctx, llama_context * draft) {
    auto &       memory  = *atlas_loaded_memory();
    const size_t n_first = params.lora_adapters.size() + (params.mmproj.path.empty() ? 0 : 1);
    loaded_draft made    = atlas_describe_draft(params, ctx, draft, n_first, memory.model);
    memory.draft.ctx     = made.ctx;
    if (memory.draft.name.empty()) {
        memory.draft = std::move(made);
    }
}

void atlas_begin_hashing(const common_params & params) {
    if (atlas_active()->memory() && !params.model.path.empty()) {
        atlas_active()->root().hash_files(atlas::fingerprint_files(describe(params)));
    }
}

void atlas_memory_open(common_params & params, llama_context * ctx, llama_context * draft) {
    auto & state   = atlas_state();
    auto & runtime = state.runtime;
    if (!runtime || runtime->memory() == nullptr) {
        return;
    }
    state.adapters.set(atlas_adapters_of(params.lora_adapters));
    state.vocab        = llama_model_get_vocab(llama_get_model(ctx));
    auto       model   = describe(params);
    const bool is_back = atlas_memory_active(); // after the server slept
    if (is_back) {
        take_the_place_of_the_prompt_cache(params);
        set_draft(params, ctx, draft);
        const auto * root = state.memory->model.root();
        if (root && root->is_known &&
            (params.model_borrowed != nullptr || runtime->root().has_hashed(atlas::fingerprint_files(model)))) {
            return; // and the model is the same
        }
    }
    std::string problem = why_unsupported(params, ctx);
    if (problem.empty() && !llama_get_memory(ctx)) {
        problem = "the model has no memory that could be kept";
    }
    const auto probed = problem.empty() ? atlas::probe_state(ctx, params.swa_full) : std::nullopt;
    if (problem.empty() && !probed) {
        problem = "the model could not decode a single token";
    }
    if (!problem.empty()) {
        runtime->root().set("", problem);
        return;
    }
    auto & store = *runtime->memory();
    store.expect_entries_up_to(probed->entry_bytes(store.options().block_tokens));
    if (is_back) {
        state.memory->model.set_layout(probed->layout);
    } else {
        const bool keeps_idle = params.cache_idle_slots && runtime->memory()->options().ram_bytes > 0;
        if (keeps_idle) { // upstream's tests look for the words
            SRV_DBG("%s", "__TEST_TAG_CACHE_IDLE_SLOTS_ENABLED__\n");
        }
        // without a unified KV cache emptying a slot frees nothing that others could use
        const bool clears_idle = keeps_idle && params.kv_unified;
        state.memory.reset(new loaded_memory{
            {store, runtime->root(), *probed}, clears_idle, params.lora_adapters.size(), encoding_of(params)});
        take_the_place_of_the_prompt_cache(params);
        set_draft(params, ctx, draft);
    }
    if (params.model_borrowed != nullptr && params.model.path.empty()) {
        model.weights = atlas::hash_weights(params.model_borrowed); // not before it is sure that there is a memory
    }
    state.memory->model.settle_root(model, ctx, all_lineages(state, params), context_to_try(params, ctx),
                                    state.memory->draft.name);
}
