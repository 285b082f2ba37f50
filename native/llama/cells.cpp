#include "atlas-cells.hpp"

#include <algorithm>

namespace atlas {

bool has_shared_cells(llama_context * ctx) {
    return llama_n_ctx_seq(ctx) == llama_n_ctx(ctx) && llama_n_seq_max(ctx) > 1;
}

size_t cell_reservations::needed(llama_context * ctx, size_t n_prompt, int n_predict, int n_answers) {
    // Clients allow far longer answers than they get: whoever reserved all that may come would let sequences idle.
    constexpr size_t LIKELY = 512;
    const size_t     n_ctx  = llama_n_ctx(ctx);
    const size_t     likely = std::min(LIKELY, n_ctx / 8);
    const size_t     each   = n_predict < 0 ? likely : std::min<size_t>(n_predict, likely);
    return std::min(n_ctx, n_prompt + std::max(1, n_answers) * each);
}

size_t cell_reservations::count(llama_context * ctx, llama_seq_id id) const {
    const auto n_positions = (size_t) (llama_memory_seq_pos_max(llama_get_memory(ctx), id) + 1);
    return std::max(n_positions, (size_t) id < all.size() ? all[id].held : 0);
}

bool cell_reservations::has_room(llama_context * ctx, llama_seq_id id, size_t n_tokens) const {
    const auto n_seq = has_shared_cells(ctx) ? (llama_seq_id) llama_n_seq_max(ctx) : 0;
    size_t     used  = 0;
    for (llama_seq_id other = 0; other < n_seq; other++) {
        used += other == id ? 0 : count(ctx, other);
    }
    return used + n_tokens <= llama_n_ctx_seq(ctx);
}

bool cell_reservations::suffice(llama_context * ctx, size_t n_needed) const {
    if (!has_shared_cells(ctx)) {
        return true;
    }
    size_t sum = n_needed;
    for (size_t id = 0; id < all.size(); id++) {
        sum += all[id].reserved > 0 ? std::max(all[id].reserved, count(ctx, (llama_seq_id) id)) : 0;
    }
    return sum <= llama_n_ctx(ctx);
}

cell_reservations::cells & cell_reservations::of(llama_seq_id id) {
    all.resize(std::max(all.size(), (size_t) id + 1));
    return all[id];
}

} // namespace atlas
