// What to fetch of a prompt from the tier that servers share: follows from the prompt's tokens, as the keys of all entries
// do, and from what the tier says it has. Touches no lock; HTTP threads call it.
#pragma once

#include "atlas-memory.hpp"
#include "digest.hpp"

#include <functional>
#include <optional>
#include <vector>

namespace atlas::memory {

// An entry that may be there.
struct shared_piece {
    digest     key, parent;
    entry_kind kind;
    size_t     begin, n_tokens; // of the prompt
    size_t     end() const { return begin + n_tokens; }
};

struct shared_plan {
    std::vector<shared_piece>   pieces; // blocks and a tail, in order
    std::optional<shared_piece> checkpoint;
    size_t                      end = 0; // tokens that can be rebuilt with all of these
};

// What a prompt has here.
struct local_prefix {
    std::vector<digest> ends; // the root, and the keys of the blocks that are here, in order
    size_t              n_tokens = 0; // that can be rebuilt
    size_t              n_known  = 0; // of which there is anything
};

// Which of the pieces are there; nothing where there was no answer.
using ask_shared = std::function<std::optional<std::vector<bool>>(const std::vector<shared_piece> & pieces)>;

class shared_planner {
  public:
    // The tokens outlive it.
    shared_planner(const int32_t * tokens, size_t n_tokens, size_t block_tokens)
        : tokens(tokens), n_tokens(n_tokens), block_tokens(block_tokens) {}

    // With need_checkpoint all is worth nothing that has no checkpoint at its end. with_tail: a tail is worth a question, too.
    // Nothing where there is no answer.
    std::optional<shared_plan> plan(local_prefix here, bool need_checkpoint, bool with_tail,
                                    const ask_shared & ask) const;

    // The same without asking: all blocks that may be there.
    shared_plan all_blocks(local_prefix here) const;

  private:
    const int32_t * const tokens;
    const size_t          n_tokens;
    const size_t          block_tokens;

    shared_piece              piece(entry_kind kind, const digest & parent, size_t begin, size_t n) const;
    std::vector<shared_piece> blocks_behind(std::vector<digest> & ends) const;
    void add_inside(std::vector<shared_piece> & to, entry_kind kind, const std::vector<digest> & ends,
                    size_t n_blocks) const;
    std::optional<std::optional<shared_piece>> look_back(const std::vector<digest> & ends, size_t n_blocks,
                                                         size_t behind, const ask_shared & ask) const;
};

} // namespace atlas::memory
