// What Python asks of the hooks that its plugins have on the path of requests, and tells about them: the HOOKS queries of
// atlas-abi.h. Python's threads call it.
#pragma once

#include "atlas-config.hpp"
#include "atlas-hook-calls.hpp"

#include <optional>
#include <string>
#include <string_view>

namespace atlas {

// Nothing where `what` is no such query, or `argument` is not as the header says. Any thread.
std::optional<std::string> answer_hook_query(hook_calls & hooks, hook_calls & tiers, int32_t what,
                                             std::string_view argument);

// Has them obey the settings. Any thread.
void apply_hook_limits(hook_calls & hooks, const AtlasServerConfig & config);

} // namespace atlas
