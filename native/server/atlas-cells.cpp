#include "atlas-cells.h"

#include "llama.h"
#include "server-task.h"

#include <algorithm>
#include <vector>

// What the slots will need in the end, by their ids; 0: they are idle.
static std::vector<size_t> taken;

bool atlas_cells_are_shared(llama_context * ctx) {
    return llama_n_ctx_seq(ctx) == llama_n_ctx(ctx) && llama_n_seq_max(ctx) > 1;
}

static size_t needed_by(llama_context * ctx, const server_task & task) {
    // Clients allow far longer answers than they get: whoever reserved all that may come would let slots idle.
    constexpr size_t LIKELY    = 512;
    const size_t     n_ctx     = llama_n_ctx(ctx);
    const size_t     likely    = std::min(LIKELY, n_ctx / 8);
    const size_t     n_predict = task.params.n_predict < 0 ? likely : std::min<size_t>(task.params.n_predict, likely);
    const size_t     n_answers = std::max(1, task.params.n_cmpl);
    return std::min(n_ctx, task.tokens.size() + n_answers * n_predict);
}

bool atlas_cells_suffice(llama_context * ctx, const server_task & task) {
    if (!atlas_cells_are_shared(ctx)) {
        return true;
    }
    size_t sum = needed_by(ctx, task);
    for (size_t id = 0; id < taken.size(); id++) {
        const size_t has = taken[id] > 0 ? llama_memory_seq_pos_max(llama_get_memory(ctx), (llama_seq_id) id) + 1 : 0;
        sum += std::max(taken[id], has);
    }
    return sum <= llama_n_ctx(ctx);
}

void atlas_cells_take(llama_context * ctx, int id_slot, const server_task & task) {
    taken.resize(std::max(taken.size(), (size_t) id_slot + 1));
    taken[id_slot] = needed_by(ctx, task);
}

void atlas_cells_give_back(int id_slot) {
    if ((size_t) id_slot < taken.size()) {
        taken[id_slot] = 0;
    }
}
