// Whether tokens find cells, where sequences share those of one KV cache: llama.cpp ends all that are in a batch with an error
// when the cells run out.
//
// Called by the thread that decodes.
#pragma once

#include "llama.h"

#include <cstddef>
#include <vector>

namespace atlas {

// Whether the sequences of a context share the cells of one KV cache.
bool has_shared_cells(llama_context * ctx);

// What sequences hold, and what those at work will need in the end.
class cell_reservations {
  public:
    // Of n_prompt tokens and n_answers continuations of n_predict each; negative: until they end. No answer is taken to have
    // more than 512 tokens, or than an eighth of the context where that is less: with longer ones cells may still run out,
    // as in stock.
    static size_t needed(llama_context * ctx, size_t n_prompt, int n_predict, int n_answers);

    // Whether so many fit beside what is reserved. True where no cells are shared.
    bool suffice(llama_context * ctx, size_t n_needed) const;

    // Whether n_tokens fit into the sequence in place of what it holds, beside what the others hold.
    bool has_room(llama_context * ctx, llama_seq_id id, size_t n_tokens) const;

    // The sequence works from now on, or does not.
    void take(llama_seq_id id, size_t n_needed) { of(id).reserved = n_needed; }

    void give_back(llama_seq_id id) { take(id, 0); }

    // The sequence has so many tokens now. Who does not say it has as many counted as there are positions: with M-RoPE the
    // tokens of an image have fewer than cells.
    void hold(llama_seq_id id, size_t n_tokens) { of(id).held = n_tokens; }

  private:
    struct cells {
        size_t reserved = 0; // 0: the sequence does not work
        size_t held     = 0;
    };

    std::vector<cells> all; // by sequence

    cells & of(llama_seq_id id);
    size_t  count(llama_context * ctx, llama_seq_id id) const;
};

} // namespace atlas
