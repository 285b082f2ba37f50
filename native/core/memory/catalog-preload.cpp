// The part of the catalog that decides which entries come back into RAM after a start.
#include "catalog.hpp"

#include <algorithm>

namespace atlas::memory {

static bool is_on_disk_only(const index_node & node) {
    return node.fits && node.disk.present && !node.in_ram && !node.pending && !node.is_superseded && !node.is_forgotten;
}

// Whether all entries from one of these roots to the leaf are there. The walk ends at an entry in RAM, whose own
// ancestors were there when it was read.
static bool is_reachable(const index_node & leaf, const std::set<digest> & roots, size_t & n_nodes) {
    const index_node * node = &leaf;
    while (node->parent && is_on_disk_only(*node)) {
        node = node->parent;
        n_nodes++;
    }
    return node->in_ram || node->pending || (!node->parent && roots.count(*node->key) > 0);
}

std::optional<std::vector<match_piece>> catalog::next_to_preload(const std::set<digest> & roots, size_t max_nodes,
                                                                 std::optional<tier_books::place> & cursor) {
    std::vector<match_piece> pieces;
    for (size_t n_nodes = 0; n_nodes < max_nodes && pieces.empty(); n_nodes++) {
        index_node * node = disk.last(cursor);
        if (!node) {
            return std::nullopt;
        }
        if (!is_reachable(*node, roots, n_nodes)) {
            continue;
        }
        for (; node->parent && is_on_disk_only(*node); node = node->parent) {
            if (node->lease.expired()) { // a leased entry was just read by a request
                pieces.push_back(piece_of(*node, node->position));
            }
        }
    }
    std::reverse(pieces.begin(), pieces.end());
    return pieces;
}

preload_step catalog::next_step(const match_piece & piece, uint64_t max_bytes) {
    const index_node * node = index.find(piece.key);
    if (!node || !is_on_disk_only(*node)) {
        return preload_step::skip;
    }
    const uint64_t bytes = node->disk.bytes - header_bytes(0); // in RAM
    return ram.bytes() + bytes > max_bytes ? preload_step::end : preload_step::go_on;
}

void catalog::preload(const match_piece & piece) {
    index_node & node = *index.find(piece.key);
    if (node.touches == 0) {
        node.ram.priority = node.disk.priority; // it was not used since the start: the time of its file counts
    }
    if (keep_in_ram(node, piece.entry)) {
        node.is_preloaded = true;
        counters.preloaded_entries++;
        counters.preloaded_bytes += node.ram.bytes;
    }
}

} // namespace atlas::memory
