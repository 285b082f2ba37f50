// What the loaded model's memory is made of, for the files that find, restore and publish its state.
#pragma once

#ifdef LLAMA_ATLAS

#include "atlas-memory-root.h"
#include "atlas-memory.hpp"
#include "llama.h"
#include "src/llama-ext.h"

#include <atomic>
#include <cstddef>

// What the state of a sequence consists of, found out by asking for the sizes of its parts.
enum class state_class {
    ranges,          // plain KV, MLA: blocks hold everything
    ranges_and_window, // SWA: blocks hold the part that can be cut, a checkpoint what the last tokens see of the rest
    ranges_and_rest,   // hybrid: the same, but a checkpoint's state is that of one place
    rest_only,       // recurrent: a checkpoint holds everything
    whole_only,      // cannot be cut: a checkpoint of the whole state
};

// Set when the model is loaded, before HTTP threads pass upstream's is_ready. After that they
// read what is atomic only: the root changes once the model's files are hashed, and all where they were changed while the
// server slept.
struct memory_setup {
    atlas::memory_store *            store = nullptr;
    std::atomic<const memory_root *> root{nullptr};
    std::atomic<state_class>         parts{state_class::ranges};
    bool                             clears_idle = false; // slots, when another gets a task
    int32_t                          n_swa       = 0; // the window, as upstream rolls back within it; 0: none

    bool                  needs_checkpoint() const { return parts != state_class::ranges; }
    llama_state_seq_flags checkpoint_flags() const {
        return parts == state_class::whole_only ? LLAMA_STATE_SEQ_FLAGS_NONE : LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY;
    }
};

extern memory_setup atlas_setup;

// Fewer tokens than this are sooner computed than looked up.
constexpr size_t ATLAS_MIN_GAIN_TOKENS = 16;

#endif // LLAMA_ATLAS
