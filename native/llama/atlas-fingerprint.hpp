// What makes KV of one server useless to another: the model's files, settings, and maybe by what it is computed.
#pragma once

#include "atlas-state-layout.hpp"
#include "llama.h"

#include <cstddef>
#include <string>
#include <vector>

namespace atlas {

// What is added to the residual stream of some layers.
struct control_vector {
    std::string file;
    float       strength = 0;
};

// What a model is loaded and run with, as far as its KV depends on it. Pointers are borrowed.
struct model_description {
    std::string                                  file; // of a model that is split, the first; empty: see weights
    std::string                                  build; // of llama.cpp
    llama_context_params                         context;
    const std::vector<llama_model_kv_override> & overrides; // of the model's metadata; one without a key ends them
    std::vector<control_vector>                  vectors = {};
    std::vector<std::string> adapters = {}; // files, by the numbers that lineages have; behind them those of a
                                           // projector, and of a draft model
    std::string weights       = {}; // hash_weights(), where the file is not known
    int32_t     vectors_first = 0, vectors_last = 0; // layers
};

// 32 hexadecimal digits for all tensors of a model, their names and shapes, wherever they are. Reads each byte once, at the
// speed of memory; tensors of a device are copied piece by piece. Any thread; nothing may compute with a device meanwhile.
std::string hash_weights(const llama_model * model);

// All files of a model that is split, else the one.
std::vector<std::string> model_files(const std::string & path);

// The files of which every byte matters: all parts of the model, control vectors, and behind these the adapters.
std::vector<std::string> fingerprint_files(const model_description & model);

// What else decides what state means, as a text of words: RoPE and attention settings, overrides of metadata, the types of K
// and V, the block size, what the state's layout depends on, and the format of the memory. The size of the context is none
// of these, but where the model computes otherwise in a long one, or its state cannot be cut.
std::string fingerprint_settings(const model_description & model, const llama_context * ctx, size_t block_tokens,
                                 const state_layout & layout);

// By what state is computed, as a text of words: the build of llama.cpp, which backends have the layers, and whether by flash
// attention. Two that compute the same may differ by rounding, or by more.
std::string fingerprint_environment(const model_description & model, const llama_context * ctx);

} // namespace atlas
