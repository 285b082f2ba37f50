#include "atlas-positions.hpp"

#include "src/llama-ext.h"

#include <cstdint>

namespace atlas {

static bool holds(const media_span & span, size_t token) { return span.begin <= token && token < span.end; }

llama_pos position_of(const std::vector<media_span> & media, size_t token) {
    auto at = (llama_pos) token;
    for (const media_span & each : media) {
        if (each.end <= token) {
            at += each.n_pos - (llama_pos) (each.end - each.begin);
        } else if (each.has_one_position && holds(each, token)) {
            at -= (llama_pos) (token - each.begin);
        }
    }
    return at;
}

llama_cell_range cells_of(const std::vector<media_span> & media, size_t begin, size_t end) {
    uint32_t skip = 0;
    for (const media_span & each : media) {
        skip = each.has_one_position && holds(each, begin) ? (uint32_t) (begin - each.begin) : skip;
    }
    return {position_of(media, begin), position_of(media, end - 1) + 1, skip, (uint32_t) (end - begin)};
}

} // namespace atlas
