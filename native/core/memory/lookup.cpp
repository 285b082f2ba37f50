#include "lookup.hpp"

#include <atomic>
#include <chrono>
#include <map>

namespace atlas {

void memory_match::cut(size_t n) {
    if (n >= n_tokens) {
        return;
    }
    n_tokens = checkpoint ? 0 : n;
    while (!blocks.empty() && blocks.back()->position >= n_tokens) {
        blocks.pop_back();
    }
    checkpoint.reset();
}

} // namespace atlas

namespace atlas::memory {

// Counts a running lookup as long as it lives; the preloader pauses meanwhile.
struct finding_guard {
    explicit finding_guard(std::atomic<int> & count) : count(count) { count++; }
    ~finding_guard() { count--; }
    std::atomic<int> & count;
};

match_plan lookup::choose(const digest & root, const int32_t * tokens, size_t n_tokens, bool need_checkpoint,
                          size_t rewind, int max_tier) {
    prefix_search search;
    search.root            = root;
    search.tokens          = tokens;
    search.n_tokens        = n_tokens;
    search.need_checkpoint = need_checkpoint;
    search.rewind          = rewind;
    search.max_tier        = max_tier;
    state.in_steps([&] { return state.entries.choose(search, AT_ONCE); });
    auto & found = search.plan.blocks;
    found.erase(found.begin() + (ptrdiff_t) ((search.plan.n_tokens + block_tokens - 1) / block_tokens), found.end());
    return std::move(search.plan);
}

void lookup::use(match_plan & plan, lease_budget::hold & reading, const memory_access & access) {
    std::vector<memory_entry_ptr> released;
    state.in_steps([&] {
        const bool goes_on = state.entries.use(plan, reading, access, AT_ONCE);
        const auto more    = state.entries.take_released();
        released.insert(released.end(), more.begin(), more.end());
        return goes_on;
    });
    state.work.notify_one();
    state.share_work.notify_one();
}

memory_match lookup::find(const digest & root, const int32_t * tokens, size_t n_tokens, bool need_checkpoint,
                          const memory_access & access, const lookup_patience & patience) {
    lease_budget &                     leases = *state.entries.leases;
    std::map<digest, memory_entry_ptr> held;
    memory_match                       match;
    lease_budget::hold                 reading; // declared before the plan, so that it is destroyed after it
    match_plan                         plan;
    int                                max_tier = access.max_tier;
    size_t                             rewind   = access.rewind;
    if (const std::lock_guard<std::mutex> lock(state.mutex); state.reading.is_waiting()) {
        max_tier = std::min(max_tier, 1);
    }
    while (true) {
        plan                 = choose(root, tokens, n_tokens, need_checkpoint, rewind, max_tier);
        const uint64_t bytes = plan.bytes_to_read();
        if (held.empty() && source.is_too_slow(bytes, access.seconds_per_token * (double) plan.n_tokens)) {
            match.is_too_slow = true;
            max_tier          = 1;
            continue;
        }
        if (bytes > reading.bytes()) {
            lease_budget::hold more  = leases.take(bytes - reading.bytes(), {});
            const bool         waits = more.bytes() == 0 && reading.bytes() == 0;
            if (waits) {
                plan             = {}; // a lookup that waits leases nothing, else two could wait for each other
                const auto began = std::chrono::steady_clock::now();
                more             = leases.take(bytes, patience);
                match.waited_s += std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
            }
            match.is_refused = more.bytes() == 0;
            max_tier         = match.is_refused ? 1 : max_tier;
            reading.merge(std::move(more));
            if (waits || match.is_refused) {
                continue; // the catalog may have changed meanwhile
            }
        }
        const finding_guard finding(state.n_finding);
        const auto          possible = source.read_missing(plan, held);
        if (!possible) {
            break;
        }
        n_tokens = *possible;
        rewind   = 0; // else the same checkpoint would be found again
    }
    held.clear();
    use(plan, reading, access);

    bool       was_read = false;
    const auto look_at  = [&](const match_piece & piece) {
        was_read |= piece.was_read;
        if (piece.is_first_use) {
            state.files.mark_used(piece.key); // the preload did not count as a use
        }
    };
    match.n_tokens   = plan.n_tokens;
    match.n_known    = plan.n_known;
    match.has_parted = plan.has_parted;
    for (match_piece & piece : plan.blocks) {
        look_at(piece);
        match.blocks.push_back(std::move(piece.entry));
    }
    if (plan.checkpoint) {
        look_at(*plan.checkpoint);
        match.checkpoint = std::move(plan.checkpoint->entry);
        match.n_beyond   = plan.n_beyond;
    }
    match.tier = match.n_tokens == 0 ? 0 : was_read ? 2 : 1;
    return match;
}

} // namespace atlas::memory
