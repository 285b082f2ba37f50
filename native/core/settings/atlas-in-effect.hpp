// What the settings come to where several say something of one thing. Whoever wants to know asks here, Python too: the
// status hands these to it. Any thread.
#pragma once

#include "atlas-config.hpp"

#include <string>

namespace atlas {

// Why nothing survives a restart, why no KV of conversations is kept, nor sessions, and why nothing is counted: a sentence
// that says how to turn it on, for clients and the log; empty where it is on.
std::string saving_off(const AtlasServerConfig & config);
std::string conversations_off(const AtlasServerConfig & config);
std::string metrics_off(const AtlasServerConfig & config);

// The same for responses and chat completions, which are not kept then.
std::string storing_off(const AtlasServerConfig & config);

// Whether what is kept under the memory path is encrypted.
bool is_encrypted(const AtlasServerConfig & config);

// The least severe line that is logged.
LogLevel least_logged(const AtlasServerConfig & config);

// A JSON object with these by name but storing_off, encrypted and log_level for the last two; null for what is empty.
std::string in_effect_json(const AtlasServerConfig & config);

} // namespace atlas
