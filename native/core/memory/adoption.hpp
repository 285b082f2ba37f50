// What was kept under a root that stood for nothing, given the root that was found out.
#pragma once

#include "shared-state.hpp"

namespace atlas::memory {

// As memory_store::adopt(), of the store whose state that is.
void adopt(memory_store & store, shared_state & state, const digest & from, const digest & to);

} // namespace atlas::memory
