#include "atlas-state-layout.hpp"

#include "src/llama-ext.h"

#include <algorithm>

namespace atlas {

std::optional<probed_state> probe_state(llama_context * ctx, bool is_swa_full) {
    const llama_model * model = llama_get_model(ctx);
    const llama_vocab * vocab = llama_model_get_vocab(model);
    llama_token         token = std::max<llama_token>(0, llama_vocab_bos(vocab));
    if (llama_decode(ctx, llama_batch_get_one(&token, 1)) != 0) {
        return std::nullopt;
    }
    const llama_cell_range first = {0, 1, 0, 1};
    const size_t           all = llama_state_seq_get_data_range(ctx, nullptr, 0, 0, first, LLAMA_STATE_SEQ_FLAGS_NONE);
    const size_t ranges = llama_state_seq_get_data_range(ctx, nullptr, 0, 0, first, LLAMA_STATE_SEQ_FLAGS_NON_PARTIAL);

    probed_state found;
    found.token_bytes  = ranges;
    found.layout.n_swa = is_swa_full ? 0 : llama_model_n_swa(model);
    if (all == 0) {
        found.layout.parts = state_class::whole_only;
    } else if (ranges == 0) {
        found.layout.parts = state_class::recurrent_only;
    } else if (all > ranges) {
        const bool has_recurrent = llama_model_is_hybrid(model) || llama_model_is_recurrent(model);
        found.layout.parts       = has_recurrent ? state_class::ranges_and_recurrent : state_class::ranges_and_window;
    }
    if (found.layout.needs_checkpoint()) {
        // Recurrent state has one size; a window, or what cannot be cut, may have as many tokens as there is room for.
        constexpr uint64_t SLACK     = 8;
        const bool         is_fixed  = found.layout.parts != state_class::whole_only && found.layout.n_swa == 0;
        const uint64_t     one_token = llama_state_seq_get_size_ext(ctx, 0, found.layout.checkpoint_flags());
        found.checkpoint_bytes       = one_token * (is_fixed ? SLACK : llama_n_ctx_seq(ctx));
    }
    llama_memory_clear(llama_get_memory(ctx), true);
    llama_synchronize(ctx);
    llama_perf_context_reset(ctx);
    return found;
}

} // namespace atlas
