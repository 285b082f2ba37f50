// Moves entries from a provisional root to the model's own root, once the model's files are hashed. Called by the
// thread that hashed them; takes the store's mutex in steps, and touches no disk.
#pragma once

#include "shared-state.hpp"

namespace atlas::memory {

// As memory_store::adopt(), of the store whose state that is.
void adopt(memory_store & store, shared_state & state, const digest & from, const digest & to);

} // namespace atlas::memory
