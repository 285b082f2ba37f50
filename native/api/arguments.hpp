// The command line that a program gives the engine.
#pragma once

#include "common.h"

#include <string>
#include <vector>

struct llama_model;

namespace atlas {

// arguments: as of llama-server's command line, as {"-c", "8192"}; nothing that is about HTTP matters. model_path: of the file that
// the model was loaded from, or empty. n_parallel is negative where the arguments do not say how many sequences there are.
// Throws std::invalid_argument.
common_params parse_arguments(llama_model * model, const std::string & model_path,
                              const std::vector<std::string> & arguments);

} // namespace atlas
