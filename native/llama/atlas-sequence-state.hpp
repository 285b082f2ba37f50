// The state of one sequence: captured into the memory, and restored from it.
//
// All by the thread that decodes. Copies memory, and never touches a file or waits for a lock that is held across one.
#pragma once

#include "atlas-memory.hpp"
#include "atlas-model-memory.hpp"
#include "atlas-positions.hpp"
#include "atlas-sequence-record.hpp"
#include "llama.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

namespace atlas {

// State at a place that cannot be rolled back to, which the sequence's owner keeps. Borrowed.
struct owned_checkpoint {
    int64_t         n_tokens = 0;
    llama_pos       pos_max  = 0; // the last position in it
    const uint8_t * data     = nullptr;
    size_t          size     = 0;
};

// What the owner of a sequence knows of it. Borrowed.
struct sequence_content {
    const llama_token *           tokens; // of its cells, from `first` on
    size_t                        n_tokens; // of all its cells
    const std::string &           lineage; // whose they are, and under which adapters they were computed
    std::vector<owned_checkpoint> checkpoints;
    std::vector<media_span>       media = {}; // of all its tokens, in order
    size_t                        first = 0; // of the tokens that are known: at most what begin_of_rest() says

    const llama_token * from(size_t token) const { return tokens + (token - first); }
};

struct capture_limits {
    bool    is_whole      = false; // nothing works on the sequence: up to its last token, with what cannot be cut
    bool    is_checkpoint = false; // what cannot be cut is wanted at this place
    int64_t deadline_us =
        std::numeric_limits<int64_t>::max(); // of ggml_time_us(), for blocks that are not needed for that
    bool is_computing = false; // the device may not have finished the last batch: times say nothing of copying

    // Whether somebody waits for the decoding thread, asked where a block takes long. May be empty.
    std::function<bool()> is_called_away = {};

    bool is_bounded() const { return !is_checkpoint && deadline_us != std::numeric_limits<int64_t>::max(); }
};

// Whether the memory has all of the n_tokens of a sequence, so that it may be given up.
bool is_kept(const model_memory & memory, const sequence_record & record, size_t n_tokens);

// A view of a sequence: made where it is needed.
class sequence_state {
  public:
    // record: as the last call left it, set back where the sequence's tokens were given up. part: whose state it is; that of
    // a draft has a record of its own, and a lineage that names what drafts.
    sequence_state(model_memory & memory, llama_context * ctx, llama_seq_id id, sequence_record & record,
                   state_part part = state_part::target)
        : memory(memory), ctx(ctx), id(id), record(record), part(part), layout(memory.layout(part)) {}

    // Whether capture() would look at the state of a sequence of n_tokens.
    bool has_more(size_t n_tokens) const;

    // The first token that capture() will look at.
    size_t begin_of_rest() const;

    // Puts what the sequence computed since the last call into the store. Does nothing where its cells are not those of the
    // tokens, as after a batch that failed, and leaves out what takes longer to copy than to compute. Where a block takes long, it
    // is only captured without a deadline. Returns false when something is left for another time. Throws std::bad_alloc.
    bool capture(const sequence_content & of, const capture_limits & limits);

    // The bytes that restore() copies. is_begun: the sequence has all tokens of the match, and lacks only the state that
    // cannot be rolled back to there.
    static double count_bytes(const memory_match & match, bool is_begun);

    // Makes the state of the sequence exactly that after match.n_tokens tokens, of which the last has the position `last`.
    // It has to be empty, unless is_begun. Returns false, with the sequence in any state, where that did not succeed.
    bool restore(const memory_match & match, llama_pos last, bool is_begun);

  private:
    model_memory &     memory;
    llama_context *    ctx;
    llama_seq_id       id;
    sequence_record &  record;
    const state_part   part;
    const state_layout layout;

    void        follow_root();
    bool        read_range(const llama_cell_range & range, state_bytes & data) const;
    std::string parent_key(const sequence_content & of) const;
    void        add_to_session(size_t n_behind, const std::string & key, size_t n_tokens);
    bool        is_worth(size_t n_tokens);
    bool        is_time_for_block(const capture_limits & limits) const;
    bool        capture_range(const sequence_content & of, entry_kind kind, size_t n_tokens, bool is_computing);
    std::string capture_checkpoint(const sequence_content & of, size_t n_tokens, state_bytes data);
    void        capture_owned(const sequence_content & of);
    void        capture_tip(const sequence_content & of);
    bool        append_blocks(const memory_match & match);
    bool        go_to_end(const memory_match & match, llama_pos last);
};

} // namespace atlas
