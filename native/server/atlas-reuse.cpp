// What a slot can go on from by itself, and what a task would cost there.
#include "atlas-memory-setup.h"
#include "atlas-slots.h"
#include "server-common.h"
#include "server-task.h"

#include <algorithm>
#include <cmath>
#include <limits>

// Follows upstream's update_slots line by line, where a task starts: what may be reused of the common prefix depends on
// how far the part of the state that is no full attention can be rolled back, or on a checkpoint before.
size_t atlas_count_reusable(llama_context * ctx, int id_slot, const server_prompt & prompt, const server_task & task) {
    size_t n_past = task.params.cache_prompt ? prompt.tokens.get_common_prefix(task.tokens) : 0;
    if (n_past == 0) {
        return 0;
    }
    const int32_t   n_swa          = atlas_loaded_memory() ? atlas_loaded_memory()->model.layout().n_swa : 0;
    const llama_pos pos_next       = prompt.tokens.pos_next(n_past);
    const bool      has_new_tokens = n_past < task.tokens.size();
    const llama_pos threshold      = std::max<llama_pos>(0, pos_next - n_swa - (has_new_tokens ? 0 : 1));
    if (llama_memory_seq_pos_min(llama_get_memory(ctx), id_slot) >= threshold) {
        const auto it = std::find_if(prompt.checkpoints.rbegin(), prompt.checkpoints.rend(), [&](const auto & from) {
            return from.pos_max <= pos_next && (from.pos_min < threshold || from.pos_min == 0);
        });
        if (it == prompt.checkpoints.rend()) {
            return 0;
        }
        const llama_pos pos = std::min(pos_next, std::max(it->pos_min + 1, it->pos_max));
        n_past              = std::min<size_t>(prompt.tokens.size_up_to_pos(pos), it->n_tokens);
    }
    // one token at least is computed, for its logits
    return std::min(n_past, task.tokens.size() - 1);
}

size_t atlas_cells_needed(llama_context * ctx, const server_task & task) {
    return atlas::cell_reservations::needed(ctx, task.tokens.size(), task.params.n_predict, task.params.n_cmpl);
}

void atlas_note_cells(int id_slot, const server_prompt & prompt) {
    if (auto * loaded = atlas_loaded_memory()) {
        loaded->model.cells.hold(id_slot, prompt.tokens.size());
    }
}

bool atlas_chooses_slot(const server_task & task) { return atlas_memory_active() && task.id_slot == -1; }

double atlas_slot_cost(llama_context * ctx, int id_slot, const server_prompt & prompt, int64_t last_used,
                       const server_task & task) {
    static const double COPIED      = 0.02; // a token that is copied, of one that is computed
    static const double HALF_LIFE_S = 600;  // of the chance that somebody comes back

    auto & cells = atlas_loaded_memory()->model.cells;
    cells.give_back(id_slot); // it is idle
    if (!cells.suffice(ctx, atlas_cells_needed(ctx, task))) {
        return std::numeric_limits<double>::infinity();
    }
    const size_t common  = prompt.tokens.get_common_prefix(task.tokens);
    const double has     = atlas_count_reusable(ctx, id_slot, prompt, task);
    const double known   = task.memory ? task.memory->match.n_tokens : 0;
    const double to_copy = known > has ? known : 0;
    const double lost    = (double) prompt.tokens.size() - (double) common;
    const double idle_s  = (double) (ggml_time_us() - last_used) / 1e6;
    const double returns = last_used < 0 ? 0 : std::exp2(-idle_s / HALF_LIFE_S);
    return (double) task.tokens.size() - std::max(has, known) + COPIED * (to_copy + lost * returns);
}
