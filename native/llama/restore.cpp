#include "atlas-model-memory.hpp"
#include "atlas-sequence-state.hpp"
#include "src/llama-ext.h"

#include <algorithm>

namespace atlas {

double sequence_state::count_bytes(const memory_match & match, bool is_begun) {
    double bytes = match.checkpoint ? (double) match.checkpoint->data.size() : 0;
    for (const auto & entry : match.blocks) {
        bytes += is_begun ? 0 : (double) entry->data.size();
    }
    return bytes;
}

// Appends the part of the match's state that can be cut to the empty sequence.
bool sequence_state::append_blocks(const memory_match & match) {
    const llama_state_seq_flags flags = LLAMA_STATE_SEQ_FLAGS_NON_PARTIAL | LLAMA_STATE_SEQ_FLAGS_APPEND;
    return std::all_of(match.blocks.begin(), match.blocks.end(), [&](const auto & entry) {
        const auto & data = entry->data;
        return data.empty() || llama_state_seq_set_data_ext(ctx, data.data(), data.size(), id, flags) == data.size();
    });
}

// Makes the state of a sequence that has the blocks of the match exactly that after match.n_tokens tokens.
bool sequence_state::go_to_end(const memory_match & match, llama_pos last) {
    const auto cache = llama_get_memory(ctx);
    if (match.checkpoint) {
        const auto & data = match.checkpoint->data;
        if (llama_state_seq_set_data_ext(ctx, data.data(), data.size(), id, layout.checkpoint_flags()) != data.size()) {
            return false;
        }
    }
    // only now: recurrent state refuses to be cut before its end
    return (layout.parts == state_class::whole_only || llama_memory_seq_rm(cache, id, last + 1, -1)) &&
           llama_memory_seq_pos_max(cache, id) == last;
}

bool sequence_state::restore(const memory_match & match, llama_pos last, bool is_begun) {
    if ((!is_begun && !append_blocks(match)) || !go_to_end(match, last)) {
        return false;
    }
    record.restored_at = (int64_t) match.n_tokens;
    if (!match.blocks.empty() && match.blocks.back()->kind == entry_kind::tail) {
        record.tail = match.blocks.back()->key;
    }
    return true;
}

} // namespace atlas
