// Finds what the memory has of a prompt: asks the catalog, waits for room in the budget of leases, reads from disk, and
// keeps what was read. HTTP threads call it; it takes the store's mutex in steps, and reads without it.
#pragma once

#include "reader.hpp"
#include "shared-state.hpp"

namespace atlas::memory {

// Any thread, one at a time; what it refers to outlives it.
class lookup {
  public:
    lookup(shared_state & state, reader & source, size_t block_tokens)
        : state(state), source(source), block_tokens(block_tokens) {}

    // As memory_store::find().
    memory_match find(const digest & root, const int32_t * tokens, size_t n_tokens, bool need_checkpoint,
                      const memory_access & access, const lookup_patience & patience);

  private:
    shared_state & state;
    reader &       source;
    const size_t   block_tokens;

    // Both take the store's mutex in steps.
    match_plan choose(const digest & root, const int32_t * tokens, size_t n_tokens, bool need_checkpoint, size_t rewind,
                      int max_tier);
    void       use(match_plan & plan, lease_budget::hold & reading, const memory_access & access);
};

} // namespace atlas::memory
