// The tokens of a prompt as the memory knows them. Where a prompt has an image or sound, upstream has a token that says nothing;
// the memory's say which it is.
#pragma once

#ifdef LLAMA_ATLAS

#include "atlas-positions.hpp"
#include "llama.h"

#include <cstddef>
#include <vector>

struct loaded_memory;
struct server_tokens;

// A view, valid while what it was made of does not change. Empty where the memory cannot tell the prompt's media from others:
// what encodes them has no hash yet, or they are too small.
class atlas_prompt_tokens {
  public:
    // memory: tells what makes state of media, and is only asked where there are some. first: the tokens before it are of no
    // interest, and data() begins with it; at most as many as there are.
    atlas_prompt_tokens(const server_tokens & of, const loaded_memory & memory, size_t first = 0);

    const llama_token * data() const { return n == 0 || !own.empty() ? own.data() : text; }
    size_t              size() const { return n; } // of all the prompt

    // The last place, from n_tokens backwards, that is within no image or sound.
    size_t boundary(size_t n_tokens) const;

    const std::vector<atlas::media_span> & spans() const { return media; }

  private:
    const llama_token *            text = nullptr;
    std::vector<llama_token>       own; // where there are media
    std::vector<atlas::media_span> media;
    size_t                         n = 0;
};

// In order.
std::vector<atlas::media_span> atlas_media_of(const server_tokens & tokens);

// Makes the first n_tokens of `to` those of `from`, where `to` has the first of them already. What `from` holds of an image or
// sound to encode it stays there. n_tokens is within none.
void atlas_copy_tokens(server_tokens & to, const server_tokens & from, size_t n_tokens);

#endif // LLAMA_ATLAS
