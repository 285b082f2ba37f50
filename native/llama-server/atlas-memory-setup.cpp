#include "atlas-memory-setup.h"

#include "atlas-fingerprint.h"
#include "atlas-gateway.hpp"
#include "atlas-llama-server.h"
#include "atlas-runtime.hpp"
#include "atlas-slots.h"
#include "common.h"
#include "hash/hash.h"
#include "server-common.h"

#include <algorithm>
#include <string>

memory_setup atlas_setup;

std::string memory_setup::root_of(const std::string & tenant) const {
    const std::string both = root + tenant;
    return tenant.empty() ? root : hash_sha256_hex(both.data(), both.size());
}

bool atlas_memory_active() { return atlas_setup.store != nullptr; }

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
        atlas_setup.parts = state_class::whole_only;
    } else if (ranges == 0) {
        atlas_setup.parts = state_class::rest_only;
    } else {
        atlas_setup.parts = all > ranges ? state_class::ranges_and_rest : state_class::ranges;
    }
    atlas_setup.token_bytes = ranges;
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

// The memory keeps what stock's prompt cache would, and not twice.
static void take_the_place_of_the_prompt_cache(common_params & params) {
    params.cache_ram_mib    = 0;
    params.cache_idle_slots = false;
}

// Of all who may ask: those without a key, and those with each.
static std::vector<std::string> all_roots(const common_params & params, const atlas::gateway & gate) {
    std::vector<std::string> roots = {atlas_setup.root};
    for (const std::string & key : params.api_keys) {
        roots.push_back(atlas_setup.root_of(gate.identify(key).tenant));
    }
    return roots;
}

void atlas_memory_open(common_params & params, llama_context * ctx, bool has_draft) {
    auto & runtime = atlas_active();
    if (runtime && runtime->gate().has_tenants()) {
        // stock's prompt cache does not know whose prompts it holds
        params.cache_ram_mib = 0;
    }
    if (!runtime || runtime->memory() == nullptr) {
        return;
    }
    if (atlas_memory_active()) {
        // the model comes back after the server slept: it is the same, and HTTP threads may be reading the setup
        take_the_place_of_the_prompt_cache(params);
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
        atlas_setup.store = runtime->memory();
        atlas_setup.root =
            atlas_fingerprint(params, ctx, atlas_setup.store->options().block_tokens, atlas_setup.needs_checkpoint());
        atlas_setup.store->expect_blocks_of(atlas_setup.token_bytes * atlas_setup.store->options().block_tokens);
        atlas_setup.store->preload(all_roots(params, runtime->gate()));
        const bool keeps_idle = params.cache_idle_slots && atlas_setup.store->options().ram_bytes > 0;
        if (keeps_idle) { // upstream's tests look for the words
            SRV_DBG("%s", "__TEST_TAG_CACHE_IDLE_SLOTS_ENABLED__\n");
        }
        // without a unified KV cache emptying a slot frees nothing that others could use
        atlas_setup.clears_idle = keeps_idle && params.kv_unified;
        take_the_place_of_the_prompt_cache(params);
    }
    runtime->set_memory_root(atlas_setup.root, problem);
}
