// Which positions tokens have, and so which cells, where some of them are an image or sound. Without such the position of a token
// is its number. With M-RoPE all tokens of an image have one position, behind which as many are left out as the image has rows or
// columns.
#pragma once

#include "llama.h"

#include <cstddef>
#include <vector>

struct llama_cell_range;

namespace atlas {

// Tokens that are an image or sound.
struct media_span {
    size_t    begin = 0, end = 0; // by number
    llama_pos n_pos            = 0; // from the position of the first to that of the token behind the last
    bool      has_one_position = false; // all of them have that of the first
};

// Of the token with that number. The spans are in order, and do not overlap.
llama_pos position_of(const std::vector<media_span> & media, size_t token);

// Of the tokens [begin, end), which are not none; they may begin and end within a span.
llama_cell_range cells_of(const std::vector<media_span> & media, size_t begin, size_t end);

} // namespace atlas
