// Replaces files that are not encrypted, where the store encrypts: what was there before it was switched on.
#pragma once

#include "shared-state.hpp"

#include <vector>

namespace atlas::memory {

// Encrypts these entries' files one after the other, and removes the plain ones; slowly while something generates. Returns
// when all are done, when the store is closed, or when the disk has trouble: the next start goes on. For the indexer's thread.
void seal_plain_files(shared_state & state, const std::vector<digest> & keys);

} // namespace atlas::memory
