// What is known of a sequence's state and of what the memory has of it. The owner of the sequence's tokens keeps it with them,
// and sets it back with them: in llama-server it is a member of server_prompt.
#pragma once

#include "atlas-memory.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace atlas {

class memory_root;

struct sequence_record {
    const memory_root * root = nullptr; // that leads to the keys below; null: nothing is written back

    size_t      n_written_back = 0; // tokens, from the first, that are in blocks written back
    std::string last_block; // key of the last of them; empty: the root
    size_t      n_tail = 0; // tokens in the tail written back behind them
    std::string tail; // key of the last tail, which the next entry supersedes; empty: none

    std::vector<int64_t> checkpoints; // of the owner's checkpoints those that were written back, by their tokens

    // Another prompt was seen to part from the present task's after so many tokens, where the state cannot be rolled back to.
    size_t parts_at = 0;

    // The state is exactly that after this many tokens, as it was restored there: no roll-back is needed to go on.
    int64_t restored_at = -1;

    // Holds what a fresh prefill of its tokens would not give: not written back.
    bool is_inexact = false;

    // Nobody asked for it to be kept: the present task wants no caching, or there was none since the owner put the state
    // there. It may be exact all the same, and the next task writes it back.
    bool is_unwanted = true;

    // Of the present task, or of the last.
    memory_access access;
};

} // namespace atlas
