// Whether state that another build or device computed is that which this process would compute.
#pragma once

#include "atlas-memory-roots.hpp"
#include "llama.h"

#include <functional>

namespace atlas {

class model_memory;

// What a context is made of to try state in. Its size is chosen as small as may be.
struct proof_context {
    llama_model *        model = nullptr;
    llama_context_params parameters; // of the context that the state is for
    size_t               n_ctx = 0; // of a sequence there

    // Puts in force what the state was computed under besides the model: adapters, control vectors. May be empty.
    std::function<bool(llama_context *)> prepare = {};
};

// The prover computes the beginnings anew in two ways that differ in how batches are split, and puts the stored state back: the
// next tokens' log-probabilities agree where they differ by no more than a small multiple of what the two ways differ by.
// All in a context of its own, whose threads are those of the calling thread and have its priority. `memory` must outlive it.
root_prover make_prover(model_memory & memory, const proof_context & context);

} // namespace atlas
