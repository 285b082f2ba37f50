// The cells of a llama_cell_range; a patch uses this inside libllama.
#pragma once

#include "llama-ext.h"

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <tuple>
#include <utility>
#include <vector>

namespace atlas {

// Leaves of the cells, which are all in [p0, p1), those of the range; returns how many. found: first and behind the last, by
// index. Throws std::runtime_error where there are not so many.
template <typename cells_t>
uint32_t choose_cells(std::vector<std::pair<uint32_t, uint32_t>> & found, const cells_t & cells,
                      const llama_cell_range & range) {
    std::vector<uint32_t> order;
    for (const auto & [first, last] : found) {
        for (uint32_t i = first; i < last; i++) {
            order.push_back(i);
        }
    }
    if (order.size() < (uint64_t) range.skip + range.n) {
        throw std::runtime_error("the sequence has gaps there");
    }
    if (order.size() == range.n) {
        return range.n;
    }
    const auto comes_before = [&](uint32_t one, uint32_t other) {
        const auto place = [&](uint32_t i) {
            const auto & at = cells.ext_get(i);
            return std::make_tuple(cells.pos_get(i), at.y, at.x);
        };
        return place(one) < place(other);
    };
    if (!std::is_sorted(order.begin(), order.end(), comes_before)) { // they mostly are
        std::sort(order.begin(), order.end(), comes_before);
    }
    found.clear();
    for (uint32_t i = range.skip; i < range.skip + range.n; i++) {
        if (!found.empty() && found.back().second == order[i]) {
            found.back().second++;
        } else {
            found.emplace_back(order[i], order[i] + 1);
        }
    }
    return range.n;
}

} // namespace atlas
