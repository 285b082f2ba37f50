#include "atlas-cells.hpp"

#include <algorithm>

namespace atlas {

bool has_shared_cells(llama_context * ctx) {
    return llama_n_ctx_seq(ctx) == llama_n_ctx(ctx) && llama_n_seq_max(ctx) > 1;
}

static size_t count_cells(llama_context * ctx, llama_seq_id id) {
    return (size_t) (llama_memory_seq_pos_max(llama_get_memory(ctx), id) + 1);
}

bool has_room(llama_context * ctx, llama_seq_id id, size_t n_tokens) {
    const auto n_seq = has_shared_cells(ctx) ? (llama_seq_id) llama_n_seq_max(ctx) : 0;
    size_t     used  = 0;
    for (llama_seq_id other = 0; other < n_seq; other++) {
        used += other == id ? 0 : count_cells(ctx, other);
    }
    return used + n_tokens <= llama_n_ctx_seq(ctx);
}

size_t cell_reservations::needed(llama_context * ctx, size_t n_prompt, int n_predict, int n_answers) {
    // Clients allow far longer answers than they get: whoever reserved all that may come would let sequences idle.
    constexpr size_t LIKELY = 512;
    const size_t     n_ctx  = llama_n_ctx(ctx);
    const size_t     likely = std::min(LIKELY, n_ctx / 8);
    const size_t     each   = n_predict < 0 ? likely : std::min<size_t>(n_predict, likely);
    return std::min(n_ctx, n_prompt + std::max(1, n_answers) * each);
}

bool cell_reservations::suffice(llama_context * ctx, size_t n_needed) const {
    if (!has_shared_cells(ctx)) {
        return true;
    }
    size_t sum = n_needed;
    for (size_t id = 0; id < taken.size(); id++) {
        sum += std::max(taken[id], taken[id] > 0 ? count_cells(ctx, (llama_seq_id) id) : 0);
    }
    return sum <= llama_n_ctx(ctx);
}

void cell_reservations::take(llama_seq_id id, size_t n_needed) {
    taken.resize(std::max(taken.size(), (size_t) id + 1));
    taken[id] = n_needed;
}

void cell_reservations::give_back(llama_seq_id id) {
    if ((size_t) id < taken.size()) {
        taken[id] = 0;
    }
}

} // namespace atlas
