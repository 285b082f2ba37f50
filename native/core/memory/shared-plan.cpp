#include "shared-plan.hpp"

#include <algorithm>

namespace atlas::memory {

constexpr size_t MAX_BLOCKS = 512; // that one lookup asks for

// So far before its end a prompt is searched for a checkpoint that lies within a block: checkpoints at the ends of blocks are
// asked for with the blocks, and along a long prompt there is one in so many tokens.
constexpr size_t MAX_BACK = 2048;

constexpr size_t AT_ONCE_BACK = 512; // places asked for at a time

shared_piece shared_planner::piece(entry_kind kind, const digest & parent, size_t begin, size_t n) const {
    const std::string key = memory_store::key_of(kind, digest_hex(parent), tokens + begin, n);
    return {*digest_from_hex(key), parent, kind, begin, n};
}

// The blocks behind those in `ends`, which get their keys, too.
std::vector<shared_piece> shared_planner::blocks_behind(std::vector<digest> & ends) const {
    std::vector<shared_piece> pieces;
    while (ends.size() * block_tokens <= n_tokens && pieces.size() < MAX_BLOCKS) {
        pieces.push_back(piece(entry_kind::block, ends.back(), (ends.size() - 1) * block_tokens, block_tokens));
        ends.push_back(pieces.back().key);
    }
    return pieces;
}

// All entries of a kind that end within the block behind the first n_blocks, the longest first.
void shared_planner::add_inside(std::vector<shared_piece> & to, entry_kind kind, const std::vector<digest> & ends,
                                size_t n_blocks) const {
    const size_t begin = n_blocks * block_tokens;
    for (size_t n = std::min(block_tokens - 1, n_tokens - begin); n > 0; n--) {
        to.push_back(piece(kind, ends[n_blocks], begin, n));
    }
}

// The last checkpoint within one of the first n_blocks, and behind so many tokens. The outer is empty where there was no
// answer.
std::optional<std::optional<shared_piece>> shared_planner::look_back(const std::vector<digest> & ends, size_t n_blocks,
                                                                     size_t behind, const ask_shared & ask) const {
    const size_t first = std::max(behind, n_blocks * block_tokens - std::min(n_blocks * block_tokens, MAX_BACK));
    while (n_blocks > 0 && n_blocks * block_tokens > first) {
        std::vector<shared_piece> asked;
        while (n_blocks > 0 && n_blocks * block_tokens > first && asked.size() < AT_ONCE_BACK) {
            add_inside(asked, entry_kind::checkpoint, ends, --n_blocks);
        }
        const auto has = ask(asked);
        if (!has) {
            return std::nullopt;
        }
        for (size_t i = 0; i < asked.size(); i++) {
            if ((*has)[i] && asked[i].end() > behind) {
                return std::optional<shared_piece>(asked[i]);
            }
        }
    }
    return std::optional<shared_piece>();
}

shared_plan shared_planner::all_blocks(local_prefix here) const {
    shared_plan made;
    made.pieces = blocks_behind(here.ends);
    made.end    = made.pieces.empty() ? here.n_tokens : made.pieces.back().end();
    return made;
}

std::optional<shared_plan> shared_planner::plan(local_prefix here, bool need_checkpoint, bool with_tail,
                                                const ask_shared & ask) const {
    auto &                    ends    = here.ends;
    const size_t              n_local = ends.size() - 1;
    std::vector<shared_piece> asked   = blocks_behind(ends);
    const size_t              n_asked = asked.size();
    for (size_t n = ends.size() - 1; need_checkpoint && n > 0 && n * block_tokens > here.n_tokens; n--) {
        asked.push_back(piece(entry_kind::checkpoint, ends[n], n * block_tokens, 0));
    }
    const auto has = ask(asked);
    if (!has) {
        return std::nullopt;
    }
    shared_plan made;
    size_t      run = 0;
    for (; run < n_asked && (*has)[run]; run++) {
        made.pieces.push_back(asked[run]);
    }
    const size_t n_blocks = n_local + run;
    const size_t begin    = n_blocks * block_tokens;

    std::optional<shared_piece> at_end; // the last checkpoint at the end of a block
    for (size_t i = n_asked; i < asked.size() && !at_end; i++) {
        if ((*has)[i] && asked[i].begin <= begin) {
            at_end = asked[i];
        }
    }

    std::vector<shared_piece> inside;
    if (with_tail || need_checkpoint) {
        add_inside(inside, entry_kind::tail, ends, n_blocks);
    }
    const size_t n_tails = inside.size();
    if (need_checkpoint) {
        add_inside(inside, entry_kind::checkpoint, ends, n_blocks);
    }
    const auto inner = inside.empty() ? std::vector<bool>() : ask(inside);
    if (!inner) {
        return std::nullopt;
    }
    const auto has_tail = [&](size_t i) { return (*inner)[i]; };
    size_t     tail     = 0;
    while (tail < n_tails && !has_tail(tail)) {
        tail++;
    }
    const size_t covered = std::max(tail < n_tails ? inside[tail].end() : begin, here.n_known);
    if (!need_checkpoint) {
        if (tail < n_tails && inside[tail].end() > here.n_known) {
            made.pieces.push_back(inside[tail]);
        }
        made.end = made.pieces.empty() ? here.n_tokens : made.pieces.back().end();
        return made;
    }
    for (size_t i = n_tails; i < inside.size() && !made.checkpoint; i++) {
        if ((*inner)[i] && inside[i].end() <= covered && inside[i].end() > here.n_tokens) {
            made.checkpoint = inside[i];
            if (inside[i].end() > here.n_known) {
                made.pieces.push_back(inside[tail]);
            }
        }
    }
    if (!made.checkpoint) {
        const auto before = look_back(ends, n_blocks, std::max(here.n_tokens, at_end ? at_end->begin : 0), ask);
        if (!before) {
            return std::nullopt;
        }
        made.checkpoint = *before ? *before : at_end;
    }
    made.end             = made.checkpoint ? made.checkpoint->end() : here.n_tokens;
    const auto is_behind = [&](const shared_piece & one) { return one.begin >= made.end; };
    made.pieces.erase(std::remove_if(made.pieces.begin(), made.pieces.end(), is_behind), made.pieces.end());
    return made;
}

} // namespace atlas::memory
