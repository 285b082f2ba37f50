// What the state of a sequence consists of, by the kind of the model's memory.
#pragma once

#include "llama.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>

namespace atlas {

enum class state_class : uint8_t {
    ranges, // plain KV, MLA: blocks hold everything
    ranges_and_window, // SWA: blocks hold the part that can be cut, a checkpoint what the last tokens see of the rest
    ranges_and_recurrent, // hybrid: the same, but a checkpoint's state is that of one place
    recurrent_only, // recurrent: a checkpoint holds everything
    whole_only, // cannot be cut: a checkpoint of the whole state
};

// Aligned so that an atomic one is a single load with every compiler.
struct alignas(8) state_layout {
    state_class parts = state_class::ranges;
    int32_t     n_swa = 0; // the window, as a sequence can be rolled back within it; 0: none

    bool has_ranges() const { return parts != state_class::recurrent_only && parts != state_class::whole_only; }

    bool needs_checkpoint() const { return parts != state_class::ranges; }

    llama_state_seq_flags checkpoint_flags() const {
        return parts == state_class::whole_only ? LLAMA_STATE_SEQ_FLAGS_NONE : LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY;
    }

    // By how many tokens a checkpoint can be taken back. A window is saved with what any of its last 64 tokens sees, and
    // the token that is computed next is one of them.
    size_t rewind() const { return parts == state_class::ranges_and_window ? 63 : 0; }
};

struct probed_state {
    state_layout layout;
    size_t       token_bytes = 0; // of a token, in a block
    uint64_t     checkpoint_bytes =
        0; // of a checkpoint at most, which may be far more than there ever is; 0: there are none

    // What an entry has at most.
    uint64_t entry_bytes(size_t block_tokens) const {
        return std::max<uint64_t>(token_bytes * block_tokens, checkpoint_bytes);
    }
};

// Decodes one token and asks for the sizes of the parts of its state; nothing when that failed. Leaves the context empty.
// is_swa_full: of llama_context_params. The thread that owns the context.
std::optional<probed_state> probe_state(llama_context * ctx, bool is_swa_full);

} // namespace atlas
