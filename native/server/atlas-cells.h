// Whether a task's tokens find cells, where slots share those of one KV cache: upstream starts a task whenever a slot is free,
// and ends all of them with an error when the cells run out.
//
// Called by the loop thread only.
#pragma once

#ifdef LLAMA_ATLAS

#include <cstddef>

struct llama_context;
struct server_task;

// Whether slots share the cells of one KV cache.
bool atlas_cells_are_shared(llama_context * ctx);

// Whether what the task will need fits beside what the slots that work will. No answer is taken to have more than 512 tokens,
// or than an eighth of the context where that is less: with longer ones cells may still run out, as in stock.
bool atlas_cells_suffice(llama_context * ctx, const server_task & task);

// The slot works on the task from now on, or on none.
void atlas_cells_take(llama_context * ctx, int id_slot, const server_task & task);
void atlas_cells_give_back(int id_slot);

#endif // LLAMA_ATLAS
