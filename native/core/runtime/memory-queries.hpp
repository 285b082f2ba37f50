// What Python asks of the memory, and tells it: the MEMORY_… and SESSION… queries of atlas-abi.h. Calls the store,
// which takes its mutex in steps; Python's threads call it.
#pragma once

#include "atlas-memory.hpp"

#include <optional>
#include <string>
#include <string_view>

namespace atlas {

// Nothing where `what` is no such query, or `argument` is not as the header says. Any thread.
std::optional<std::string> answer_memory_query(memory_store & store, int32_t what, std::string_view argument);

} // namespace atlas
