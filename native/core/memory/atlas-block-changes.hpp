// Which blocks came into a tier and left it, for who keeps an index of them elsewhere.
#pragma once

#include <cstdint>
#include <vector>

namespace atlas {

struct block_change {
    bool                 is_stored; // else it left the tier
    int                  tier;      // 1 or 2
    uint64_t             key;       // the first bytes of the entry's key; not 0
    uint64_t             parent;    // of the block before it; 0: there is none, or it left the tier
    std::vector<int32_t> tokens;    // of a block that is stored
};

struct block_changes {
    // What was told before is void, and all that is there is told, beginning with these: at first, for another root, where
    // that was wanted, and where so much waited that some was lost.
    bool is_anew  = false;
    bool has_more = false; // ask again

    // In order. A block may be told twice, and one may leave that was never told.
    std::vector<block_change> changes;
};

} // namespace atlas
