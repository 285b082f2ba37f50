// What the memory keeps with each server_prompt. A member of it, so that server_prompt::clear() resets it too.
#pragma once

#include "atlas-memory.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

struct atlas_prompt_state {
    size_t      n_published = 0; // tokens, from the first, that are in published blocks
    std::string last_block;      // key of the last of them; empty: the root
    size_t      n_tail = 0;      // tokens in the published tail behind them
    std::string tail;            // key of the last tail, which the next entry supersedes; empty: none

    int64_t n_checkpoint = -1; // tokens at the last of server_prompt::checkpoints that was published

    // The state is exactly that after this many tokens, as it was restored there: no roll-back is needed to go on.
    int64_t n_exact = -1;

    // Holds what a fresh prefill would not give (shifted positions, a copied sequence, a slot file): not published.
    bool is_tainted = false;

    // The present task asked for no caching. Its state is exact all the same, and the next task may publish it.
    bool is_unwanted = false;

    // Of the present task, or of the last.
    atlas::memory_access access;

    // Whose the tokens are; unknown after the slot was emptied behind our back: nothing is published, and with several
    // tenants nothing reused.
    std::optional<std::string> tenant;

    static atlas_prompt_state tainted() {
        atlas_prompt_state state;
        state.is_tainted = true;
        return state;
    }
};
