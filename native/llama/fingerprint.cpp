#include "atlas-fingerprint.hpp"

#include "src/llama-context.h"
#include "src/llama-model.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <iomanip>
#include <map>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace atlas {

// Raised whenever what the memory stores changes its meaning.
static const int MEMORY_FORMAT = 1;

std::vector<std::string> model_files(const std::string & path) {
    int        n_files = 0;
    const auto of      = path.rfind("-of-");
    if (of != std::string::npos) {
        n_files = std::atoi(path.c_str() + of + 4);
    }
    char prefix[4096];
    if (n_files < 2 || llama_split_prefix(prefix, sizeof(prefix), path.c_str(), 0, n_files) == 0) {
        return {path};
    }
    std::vector<std::string> files;
    for (int i = 0; i < n_files; i++) {
        char file[4096];
        llama_split_path(file, sizeof(file), prefix, i, n_files);
        files.push_back(file);
    }
    return files;
}

std::vector<std::string> fingerprint_files(const model_description & model) {
    std::vector<std::string> files = model.file.empty() ? std::vector<std::string>() : model_files(model.file);
    for (const auto & vector : model.vectors) {
        files.push_back(vector.file);
    }
    files.insert(files.end(), model.adapters.begin(), model.adapters.end());
    return files;
}

// The value that an override gives. Behind it, and behind the end of a text, the union holds whatever was there before.
static std::string value_of(const llama_model_kv_override & override) {
    std::ostringstream text;
    text.precision(17);
    switch (override.tag) {
        case LLAMA_KV_OVERRIDE_TYPE_INT:   text << "int:" << override.val_i64; break;
        case LLAMA_KV_OVERRIDE_TYPE_FLOAT: text << "float:" << override.val_f64; break;
        case LLAMA_KV_OVERRIDE_TYPE_BOOL:  text << "bool:" << override.val_bool; break;
        case LLAMA_KV_OVERRIDE_TYPE_STR:
            text << "str:" << std::string(override.val_str, strnlen(override.val_str, sizeof(override.val_str)));
            break;
    }
    return text.str();
}

// As llama.cpp takes them: of several for one key the first counts, and one without a key ends them. Their order means
// nothing else.
static std::map<std::string, std::string> effective(const std::vector<llama_model_kv_override> & overrides) {
    std::map<std::string, std::string> values;
    for (const auto & override : overrides) {
        if (override.key[0] == 0) {
            break;
        }
        values.emplace(override.key, value_of(override));
    }
    return values;
}

// Whether the model turns its positions by other factors in a long context, and this is one.
static bool has_long_factors(const llama_context * ctx) {
    const llama_model & model = *llama_get_model(ctx);
    const auto &        parts = model.layers;
    const bool has_factors = std::any_of(parts.begin(), parts.end(), [](const auto & each) { return each.rope_long; });
    return has_factors && llama_n_ctx_seq(ctx) > model.hparams.n_ctx_orig_yarn;
}

static const llama_cparams & parameters(const llama_context * ctx) { return ctx->get_cparams(); }

std::string fingerprint_settings(const model_description & model, const llama_context * ctx, size_t block_tokens,
                                 const state_layout & layout) {
    const llama_context_params & with = model.context;
    std::ostringstream           text;
    text.precision(17);
    text << "format=" << MEMORY_FORMAT << " block=" << block_tokens;
    if (layout.parts == state_class::whole_only) {
        // blocks and checkpoints have the stream of their sequence alone, the whole state has all streams
        text << " n_seq=" << llama_n_seq_max(ctx) << " unified=" << with.kv_unified
             << " n_ctx=" << llama_n_ctx_seq(ctx);
    }
    text << " long=" << has_long_factors(ctx) << " k=" << ggml_type_name(with.type_k)
         << " v=" << ggml_type_name(with.type_v) << " swa_full=" << with.swa_full << " rope=" << with.rope_scaling_type
         << "," << with.rope_freq_base << "," << with.rope_freq_scale << " yarn=" << with.yarn_ext_factor << ","
         << with.yarn_attn_factor << "," << with.yarn_beta_fast << "," << with.yarn_beta_slow << ","
         << with.yarn_orig_ctx;

    for (const auto & [key, value] : effective(model.overrides)) {
        text << " override=" << std::quoted(key) << std::quoted(value);
    }

    // not recorded in the state, and accepted wrongly by llama.cpp
    const char * rotation = std::getenv("LLAMA_ATTN_ROT_DISABLE");
    text << " rotation=" << (rotation == nullptr ? "" : rotation);

    for (const auto & vector : model.vectors) {
        text << " control=" << vector.strength;
    }
    if (!model.weights.empty()) {
        text << " weights=" << model.weights;
    }
    text << " layers=" << model.vectors_first << "," << model.vectors_last;
    return text.str();
}

// Which backends have how many of the model's layers, in the order of these.
static std::string devices_of(const llama_model & model) {
    std::vector<std::pair<std::string, int>> runs;
    for (size_t i = 0; i < model.layers.size(); i++) {
        const std::string name = ggml_backend_reg_name(ggml_backend_dev_backend_reg(model.dev_layer((int) i)));
        if (runs.empty() || runs.back().first != name) {
            runs.emplace_back(name, 0);
        }
        runs.back().second++;
    }
    std::string text;
    for (const auto & [name, n] : runs) {
        text += (text.empty() ? "" : ",") + name + "*" + std::to_string(n);
    }
    return text;
}

std::string fingerprint_environment(const model_description & model, const llama_context * ctx) {
    const llama_cparams & with = parameters(ctx);
    return "build=" + model.build + " devices=" + devices_of(*llama_get_model(ctx)) +
           " offload_kqv=" + std::to_string(with.offload_kqv) + " flash_attn=" + std::to_string(with.flash_attn);
}

} // namespace atlas
