// The lines that llama.cpp itself writes, in a program that has the engine.
#pragma once

#include "atlas-config.hpp"

namespace atlas {

// What of them is written, as the number that upstream's -lv takes: no INFO where config.log_level leaves out INFO. DEBUG is INFO
// here, since upstream's own debug lines are many for each token.
int upstream_verbosity(const AtlasServerConfig & config);

// Has libllama write to the same log as the engine, as llama-server has it, where the program has set no callback by
// llama_log_set(). Any thread, while the program sets none.
void take_upstream_log();

} // namespace atlas
