// The slots' side of the memory: writing back what they compute, and putting back what was computed before.
//
// All but the first three, and atlas_end_loop(), are called by the loop thread only. They copy memory, and never touch a file, enter Python or
// wait for a lock that either can hold.
#pragma once

#ifdef LLAMA_ATLAS

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

struct common_adapter_lora_info;
struct common_params;
struct llama_context;
struct server_http_req;
struct server_prompt;
struct server_task;

// HTTP thread: looks up what the memory has for the task's prompt and leases it. Does nothing when there is no memory.
void atlas_memory_find(server_task & task, const server_http_req & req);

// The same for a task with the prompt and the rights of another, which has been through it.
void atlas_memory_find_like(server_task & task, const server_task & other);

// Any thread: whether the memory takes part, in place of stock's --cache-ram.
bool atlas_memory_active();

// A model was loaded: decides whether the memory takes part, and under which root. If so, sets params.cache_ram_mib to 0
// and params.cache_idle_slots to false: the memory does both. draft: of what drafts tokens; may be null.
void atlas_memory_open(common_params & params, llama_context * ctx, llama_context * draft);

// Before a slot is chosen: sets task.tokens.lineage, so that tokens of another tenant, or computed under other adapters or
// scales, have nothing in common with the task's, and drops what was looked up under another. loaded: the adapters, with the
// scales of tasks that name none.
void atlas_set_lineage(server_task & task, const std::vector<common_adapter_lora_info> & loaded);

// Before a task that names adapters is launched: gives the slot these. Upstream would do so itself, and empty the slot of what has
// just been put back for them.
void atlas_apply_adapters(std::vector<common_adapter_lora_info> & to, const server_task & task,
                          const std::vector<common_adapter_lora_info> & loaded);

// Before a task is launched on an idle slot: writes back what the slot holds, then, when the memory has more of the
// task's prompt than the slot can reuse, puts that state into the slot: what cannot be rolled back to where the memory
// can, or all of it. What the slot holds of another lineage is forgotten. After a failure the slot is empty.
void atlas_memory_restore(llama_context * ctx, int id_slot, server_prompt & prompt, server_task & task);

// How many tokens of the task's prompt upstream will reuse of what the slot holds, if the memory does nothing.
size_t atlas_count_reusable(llama_context * ctx, int id_slot, const server_prompt & prompt, const server_task & task);

// How many cells of the KV cache the task will need in the end.
size_t atlas_cells_needed(llama_context * ctx, const server_task & task);

// Whether the slot of the task is the memory's to choose.
bool atlas_chooses_slot(const server_task & task);

// What launching the task on an idle slot would cost, in tokens to compute: those that neither the slot nor the memory has,
// a little for those that are copied, and for what the slot would lose, as far as somebody may come back to it.
// last_used: in microseconds of ggml_time_us(); negative: never. Infinite where the cells that slots share would not suffice
// for it and for those that work: then it waits for one of these to end.
double atlas_slot_cost(llama_context * ctx, int id_slot, const server_prompt & prompt, int64_t last_used,
                       const server_task & task);

// Before a task is launched on id_slot: whether the prompt of another, idle slot may be given up, as the memory has all of
// it. So it is with a unified KV cache and --cache-idle-slots, as in stock, which spares every batch the attention over
// those cells; and where the task would not find enough free ones.
bool atlas_memory_may_clear(llama_context * ctx, const server_prompt & prompt, int id_slot, const server_task & task);

// The slot holds these tokens now. Said of all slots before one is chosen or launched, as it is not known when they change.
void atlas_note_cells(int id_slot, const server_prompt & prompt);

// server-context.cpp has all types of these templates.
template <typename slot> void atlas_note_all_cells(const std::vector<slot> & slots) {
    for (const slot & each : slots) {
        atlas_note_cells(each.id, each.prompt);
    }
}

// The idle slot where the task costs least; null: all are busy.
template <typename slot>
slot * atlas_cheapest_slot(llama_context * ctx, std::vector<slot> & slots, const server_task & task) {
    atlas_note_all_cells(slots);
    slot * best      = nullptr;
    double best_cost = std::numeric_limits<double>::infinity();
    for (slot & each : slots) {
        const double cost = each.is_processing() ? std::numeric_limits<double>::infinity()
                                                 : atlas_slot_cost(ctx, each.id, each.prompt, each.t_last_used, task);
        if (cost < best_cost) {
            best      = &each;
            best_cost = cost;
        }
    }
    return best;
}

// The slot that a task runs in; null: it has to wait. Upstream's choice where the task names one, or no memory takes part.
template <typename slot, typename choice>
slot * atlas_choose_slot(llama_context * ctx, std::vector<slot> & slots, server_task & task,
                         const std::vector<common_adapter_lora_info> & loaded, const choice & upstreams) {
    atlas_set_lineage(task, loaded);
    return atlas_chooses_slot(task) ? atlas_cheapest_slot(ctx, slots, task) : upstreams();
}

// Once nothing can hold the task back any more: makes room, and gives the slot what the memory has for it.
template <typename slot>
void atlas_before_launch(llama_context * ctx, std::vector<slot> & slots, slot & chosen, server_task & task,
                         const std::vector<common_adapter_lora_info> & loaded) {
    atlas_note_all_cells(slots);
    for (slot & other : slots) {
        if (&other != &chosen && !other.is_processing() && atlas_memory_may_clear(ctx, other.prompt, chosen.id, task)) {
            other.prompt_clear();
            atlas_note_cells(other.id, other.prompt);
        }
    }
    atlas_memory_restore(ctx, chosen.id, chosen.prompt, task);
    atlas_apply_adapters(chosen.lora, task, loaded);
}

// Whether the slot's state was restored exactly here, so that there is nothing to roll back to go on.
bool atlas_is_restored_at(const server_prompt & prompt, int64_t n_tokens);

// Whether what the slot holds is what a fresh prefill would give. Otherwise it is not written back.
bool atlas_is_prefill_exact(const server_prompt & prompt);

// Whether a batch should end where the tokens of a slot do, of a prompt of n_prompt, so that what cannot be rolled back is kept
// there: near the prompt's end, along a long one, and where another one parts from it.
bool atlas_memory_wants_checkpoint(const server_prompt & prompt, size_t n_prompt);

// One pass over all slots between two batches: writes back what they computed since the last. While something generates
// it takes about ATLAS_WRITE_BACK_BUDGET_US, what is left over comes in the next pass. Where one block takes long, it is left
// until nothing generates, and then until no request waits.
class atlas_write_back_pass {
  public:
    // is_busy: whether any slot works on a task.
    explicit atlas_write_back_pass(bool is_busy);
    ~atlas_write_back_pass();

    // The slot's tokens must be those of its KV cells. n_prompt: the tokens of the prompt that the slot works on; 0: it
    // is idle. Where a checkpoint is wanted, and when the slot is idle, everything is written back up to the last
    // token.
    void write_back(llama_context * ctx, int id_slot, server_prompt & prompt, size_t n_prompt) const;

  private:
    const bool     is_busy;
    const uint64_t answering;
    const bool     is_urgent;
    const int64_t  deadline_us; // of ggml_time_us
    mutable bool   is_behind = false; // an idle slot may hold more than could be written back in time
};

// Between two batches, and at the end of the loop.
template <typename slot>
void atlas_write_back_slots(llama_context * ctx, std::vector<slot> & slots, bool is_stopping = false) {
    bool is_busy = false;
    for (const slot & each : slots) {
        is_busy |= each.is_processing();
    }
    const atlas_write_back_pass pass(is_busy && !is_stopping);
    for (slot & each : slots) {
        // a slot that has just been given a task still names the tokens of the one before
        if (each.state != decltype(slot::state)::SLOT_STATE_STARTED) {
            pass.write_back(ctx, each.id, each.prompt, is_stopping || !each.task ? 0 : each.task->n_tokens());
        }
    }
}

// What is to be done when the loop of tasks has ended, by the thread that ran it: atlas_end_loop() does it.
void atlas_at_end(std::function<void()> write_back);
void atlas_end_loop();

// Before an answer is complete for its client, who may at once ask for more: writes back what the slot holds, unless
// that is so much that it has to wait for the next passes.
void atlas_memory_write_back_answer(llama_context * ctx, int id_slot, server_prompt & prompt, const server_task & task);

// Writes back all that an idle slot holds, before that is lost.
void atlas_memory_write_back_all(llama_context * ctx, int id_slot, server_prompt & prompt);

constexpr int64_t ATLAS_WRITE_BACK_BUDGET_US = 1000;

#endif // LLAMA_ATLAS
