// What a program says of how the model is to be run, as llama-server's engine takes it.
#pragma once

#include "atlas-server.hpp"
#include "common.h"

namespace atlas {

struct engine_options {
    common_params params;
    int           n_pool; // contexts that the pool has at first, where config does not say
};

// Throws std::invalid_argument, which names what is wrong.
engine_options engine_options_of(llama_model * model, const AtlasServerConfig & config,
                                 const AtlasModelOptions & options);

} // namespace atlas
