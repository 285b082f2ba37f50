#include "atlas-memory-setup.h"

#include "atlas-fingerprint.h"
#include "atlas-gateway.hpp"
#include "atlas-llama-server.h"
#include "atlas-runtime.hpp"
#include "atlas-slots.h"
#include "common.h"
#include "server-common.h"

#include <algorithm>
#include <optional>
#include <string>

memory_setup atlas_setup;

bool atlas_memory_active() { return atlas_setup.store != nullptr; }

// Decodes one token and asks for the sizes of the parts of its state. Returns those of what a block has of a token, in
// bytes, or nothing when that failed. Leaves the context empty.
static std::optional<size_t> find_state_class(llama_context * ctx) {
    const llama_model * model = llama_get_model(ctx);
    const llama_vocab * vocab = llama_model_get_vocab(model);
    llama_token         token = std::max<llama_token>(0, llama_vocab_bos(vocab));
    if (llama_decode(ctx, llama_batch_get_one(&token, 1)) != 0) {
        return std::nullopt;
    }
    const size_t all    = llama_state_seq_get_data_range(ctx, nullptr, 0, 0, 0, 1, LLAMA_STATE_SEQ_FLAGS_NONE);
    const size_t ranges = llama_state_seq_get_data_range(ctx, nullptr, 0, 0, 0, 1, LLAMA_STATE_SEQ_FLAGS_NON_PARTIAL);
    if (all == 0) {
        atlas_setup.parts = state_class::whole_only;
    } else if (ranges == 0) {
        atlas_setup.parts = state_class::rest_only;
    } else {
        const bool has_recurrent = llama_model_is_hybrid(model) || llama_model_is_recurrent(model);
        const auto with_rest     = has_recurrent ? state_class::ranges_and_rest : state_class::ranges_and_window;
        atlas_setup.parts        = all > ranges ? with_rest : state_class::ranges;
    }
    llama_memory_clear(llama_get_memory(ctx), true);
    llama_synchronize(ctx);
    llama_perf_context_reset(ctx);
    return ranges;
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

// The memory keeps what stock's prompt cache would, and not twice.
static void take_the_place_of_the_prompt_cache(common_params & params) {
    params.cache_ram_mib    = 0;
    params.cache_idle_slots = false;
}

void atlas_memory_open(common_params & params, llama_context * ctx, bool has_draft) {
    auto & runtime = atlas_active();
    if (!runtime || runtime->memory() == nullptr) {
        return;
    }
    const bool is_back = atlas_memory_active(); // after the server slept
    if (is_back) {
        take_the_place_of_the_prompt_cache(params);
        if (runtime->root().has_hashed(atlas_fingerprint_files(params))) {
            return; // and the model is the same
        }
    }
    std::string problem = why_unsupported(params, ctx, has_draft);
    if (problem.empty() && !llama_get_memory(ctx)) {
        problem = "the model has no memory that could be kept";
    }
    const auto token_bytes = problem.empty() ? find_state_class(ctx) : std::nullopt;
    if (problem.empty() && !token_bytes) {
        problem = "the model could not decode a single token";
    }
    if (!problem.empty()) {
        runtime->root().set("", problem);
        return;
    }
    atlas_setup.n_swa = params.swa_full ? 0 : llama_model_n_swa(llama_get_model(ctx));
    if (!is_back) {
        atlas_setup.store = runtime->memory();
        atlas_setup.store->expect_blocks_of(*token_bytes * atlas_setup.store->options().block_tokens);
        const bool keeps_idle = params.cache_idle_slots && atlas_setup.store->options().ram_bytes > 0;
        if (keeps_idle) { // upstream's tests look for the words
            SRV_DBG("%s", "__TEST_TAG_CACHE_IDLE_SLOTS_ENABLED__\n");
        }
        // without a unified KV cache emptying a slot frees nothing that others could use
        atlas_setup.clears_idle = keeps_idle && params.kv_unified;
        take_the_place_of_the_prompt_cache(params);
    }
    atlas_settle_root(params, ctx);
}
