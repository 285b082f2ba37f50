#include "shared-fetch.hpp"

#include <algorithm>
#include <new>
#include <utility>

namespace atlas::memory {

using seconds = std::chrono::duration<double>;

// Less time than this says nothing of a tier that did not answer.
constexpr std::chrono::milliseconds FAIR_TIME{250};

static tier_clock::duration duration_of(double s) {
    return std::chrono::duration_cast<tier_clock::duration>(seconds(std::max(0.0, s)));
}

// Gives the keys free that this lookup fetches, however that ends.
struct shared_fetch::guard {
    shared_flights &    flights;
    std::vector<digest> keys;
    ~guard() {
        for (const digest & key : keys) {
            flights.end(key);
        }
    }
};

shared_fetch::shared_fetch(shared_state & state, shared_link & link, size_t block_tokens, const memory_access & access,
                           const std::function<bool()> & is_gone, tier_deadline until)
    : state(state), link(link), block_tokens(block_tokens), access(access), is_gone(is_gone), began(tier_clock::now()),
      until(until), all_until(until) {}

bool shared_fetch::goes_on() const { return !is_over && tier_clock::now() < until && !(is_gone && is_gone()); }

// asked: when the tier was, if it has not answered at all.
void shared_fetch::failed(const tier_error & error, std::optional<tier_deadline> asked) {
    is_over = true;
    link.read_failed(error, asked && tier_clock::now() - *asked >= FAIR_TIME);
    {
        const std::lock_guard<std::mutex> held(state.mutex);
    } // else the sharer may be about to wait, and hear nothing
    state.share_work.notify_all();
}

// What is here. Where the disk does not work, what only it has is not.
local_prefix shared_fetch::look(size_t n_tokens, bool need_checkpoint) const {
    constexpr int LOCAL = 2;
    prefix_search search;
    search.root            = root;
    search.tokens          = tokens;
    search.n_tokens        = n_tokens;
    search.need_checkpoint = need_checkpoint;
    search.rewind          = access.rewind;
    {
        const std::lock_guard<std::mutex> held(state.mutex);
        search.max_tier = state.reading.is_waiting() ? 1 : LOCAL;
    }
    state.in_steps([&] { return state.entries.choose(search, AT_ONCE); });
    local_prefix here = {{root}, search.plan.n_tokens, search.plan.n_known};
    for (size_t i = 0; i < search.plan.n_known / block_tokens; i++) {
        here.ends.push_back(search.plan.blocks[i].key);
    }
    return here;
}

void shared_fetch::limit_to(double worth_s) {
    if (worth_s > 0) {
        until = std::min(until, began + duration_of(worth_s / 2));
    }
}

std::optional<std::vector<bool>> shared_fetch::ask(const std::vector<shared_piece> & pieces) {
    constexpr double MAX_ROUND_TRIPS = 5;
    if (!goes_on()) {
        return std::nullopt;
    }
    std::vector<std::string> names;
    for (const shared_piece & piece : pieces) {
        names.push_back(link.codec.name_of(root, piece.key));
    }
    auto by = until;
    if (const double usual = link.round_trip_s(); usual > 0) {
        by = std::min(by, tier_clock::now() +
                              std::max<tier_clock::duration>(FAIR_TIME, duration_of(MAX_ROUND_TRIPS * usual)));
    }
    const auto asked = tier_clock::now();
    try {
        auto         has     = link.place.probe(names, by);
        const size_t n_found = (size_t) std::count(has.begin(), has.end(), true);
        link.read_worked();
        link.count([&](shared_stats & stats) {
            stats.asked += pieces.size();
            stats.found += n_found;
        });
        return has.size() == pieces.size() ? std::optional(std::move(has)) : std::nullopt;
    } catch (const tier_error & error) {
        failed(error, asked);
    }
    return std::nullopt;
}

// Whether fetching takes clearly less time than computing what it saves.
bool shared_fetch::is_worth(const shared_plan & plan, size_t n_before) {
    uint64_t bytes = plan.checkpoint ? link.bytes_of(entry_kind::checkpoint) : 0;
    for (const shared_piece & piece : plan.pieces) {
        bytes += link.bytes_of(piece.kind);
    }
    const double takes = link.round_trip_s() + link.seconds_for(bytes) + access.seconds_per_byte * (double) bytes;
    result.is_too_slow = link.is_too_slow(takes, saved_s(plan.end - std::min(plan.end, n_before)));
    return !result.is_too_slow;
}

// The entry that the value holds; nothing where it is not the one that was asked for.
memory_entry_ptr shared_fetch::entry_of(const shared_piece & piece, const tier_value & value) const {
    file_header  header;
    const auto * bytes = reinterpret_cast<const uint8_t *>(value.bytes.data());
    const size_t size  = value.bytes.size();
    const auto   first = tokens + piece.begin;
    if (decode_header(bytes, std::min(size, header_bytes(MAX_TOKENS)), size, header) != file_state::good ||
        header.key != piece.key || header.parent != piece.parent || header.kind != piece.kind ||
        header.tokens.size() != piece.n_tokens || !std::equal(header.tokens.begin(), header.tokens.end(), first)) {
        return nullptr;
    }
    const uint8_t * data = bytes + header_bytes(piece.n_tokens);
    if (checksum(data, header.data_bytes) != header.data_checksum) {
        return nullptr;
    }
    const auto entry = std::make_shared<memory_entry>();
    entry->kind      = piece.kind;
    entry->parent    = digest_hex(piece.parent);
    entry->tokens    = std::move(header.tokens);
    entry->data.assign(data, data + header.data_bytes);
    entry->position = piece.begin;
    entry->key      = digest_hex(piece.key);
    return entry;
}

bool shared_fetch::keep(const memory_entry_ptr & entry, const shared_piece & piece) {
    std::vector<memory_entry_ptr> released; // outlives the lock
    bool                          is_kept;
    {
        const std::lock_guard<std::mutex> held(state.mutex);
        is_kept  = state.entries.add_fetched(link.number, entry, piece.key, piece.parent, access);
        released = state.entries.take_released();
    }
    state.work.notify_one();
    link.flights.end(piece.key);
    result.n_entries += is_kept;
    return is_kept;
}

// Takes one value as it came. A checkpoint is only kept here: it is of no use before all that it stands upon.
bool shared_fetch::take(const shared_piece & piece, const std::string & name, const tier_value & value,
                        const room_for & has_room, memory_entry_ptr & kept) {
    tier_value plain  = value;
    const auto result = link.codec.unwrap(name, plain, has_room);
    if (result == unwrapping::foreign || result == unwrapping::no_room) {
        return false;
    }
    const auto entry = result == unwrapping::good ? entry_of(piece, plain) : nullptr;
    if (!entry) {
        link.count([](shared_stats & stats) { stats.damaged++; });
        const std::lock_guard<std::mutex> held(state.mutex);
        state.entries.remove_shared(link.number, piece.key, root);
        state.share_work.notify_all();
        return false;
    }
    link.set_last_name(name);
    link.count([&](shared_stats & stats) {
        stats.read_entries++;
        stats.read_bytes += value.bytes.size();
    });
    if (piece.kind == entry_kind::checkpoint) {
        kept = entry;
        return true;
    }
    return keep(entry, piece);
}

void shared_fetch::get(const shared_plan & plan) {
    std::vector<shared_piece> pieces = plan.pieces;
    std::vector<std::string>  names;
    if (plan.checkpoint) {
        pieces.insert(pieces.begin(), *plan.checkpoint);
    }
    for (const shared_piece & piece : pieces) {
        names.push_back(link.codec.name_of(root, piece.key));
    }
    const size_t       n_at_once = link.place.traits().n_at_once + 1; // one more is being copied
    lease_budget &     leases    = *state.entries.leases;
    lease_budget::hold coming; // what is on its way counts
    memory_entry_ptr   checkpoint;
    uint64_t           kept_bytes = 0; // of the checkpoint
    size_t             n_taken    = 0;
    const auto         has_room   = [&](uint64_t bytes, const lookup_patience & patience) {
        const uint64_t needed = bytes * n_at_once + kept_bytes;
        if (needed > coming.bytes()) {
            auto       more   = leases.take(needed - coming.bytes(), patience);
            const bool is_all = more.bytes() > 0;
            coming.merge(std::move(more));
            return is_all;
        }
        return true;
    };
    const double left_s = seconds(until - tier_clock::now()).count();
    if (!has_room(link.bytes_of(pieces.front().kind), {std::max(left_s, 0.001), is_gone}) || !goes_on()) {
        return;
    }
    const auto asked = tier_clock::now();
    auto       last  = asked;
    try {
        link.place.get(names, until, [&](size_t i, const tier_value & value) {
            const auto now = tier_clock::now();
            link.add_reading(seconds(now - last).count(), value.bytes.size(), pieces[i].kind);
            const bool is_good =
                has_room(value.bytes.size(), {}) &&
                take(pieces[i], names[i], value, [&](uint64_t bytes) { return has_room(bytes, {}); }, checkpoint);
            kept_bytes = checkpoint ? checkpoint->data.size() : 0;
            is_over    = !is_good || (is_gone && is_gone());
            n_taken += is_good;
            last = tier_clock::now();
            return !is_over;
        });
        link.read_worked();
    } catch (const tier_error & error) {
        failed(error, n_taken == 0 ? std::optional(asked) : std::nullopt);
    }
    if (checkpoint && n_taken == pieces.size()) {
        keep(checkpoint, *plan.checkpoint);
    }
}

// Gets what is planned, or waits for those who get any of it. Returns whether to look again.
bool shared_fetch::get_or_wait(const shared_plan & plan) {
    guard mine = {link.flights, {}};
    for (const shared_piece & piece : plan.pieces) {
        mine.keys.push_back(piece.key);
    }
    if (plan.checkpoint) {
        mine.keys.push_back(plan.checkpoint->key);
    }
    if (link.flights.begin(mine.keys)) {
        get(plan);
        return false;
    }
    const auto theirs = std::move(mine.keys);
    mine.keys.clear();
    link.count([](shared_stats & stats) { stats.waited++; });
    return link.flights.wait(theirs, until, is_gone);
}

// What to fetch beyond what is here; nothing where that is not worth it, or nothing is there.
std::optional<shared_plan> shared_fetch::choose(const local_prefix & here, size_t n_tokens, bool need_checkpoint) {
    const bool is_probed = link.place.traits().is_probed;
    has_all              = n_tokens - here.n_tokens < block_tokens;
    const double worth_s = saved_s(n_tokens - here.n_tokens);
    limit_to(worth_s);
    if (has_all || !goes_on() || (!is_probed && need_checkpoint)) {
        return std::nullopt;
    }
    if (link.is_too_slow(link.round_trip_s(), worth_s)) { // its answer would come too late
        result.is_too_slow = true;
        return std::nullopt;
    }
    link.count([&](shared_stats & stats) { stats.lookups += !std::exchange(has_asked, true); });
    const shared_planner planner(tokens, n_tokens, block_tokens);
    const auto           question  = [this](const auto & pieces) { return ask(pieces); };
    const double         tail_s    = saved_s(block_tokens / 2); // that one saves
    const bool           with_tail = tail_s <= 0 || tail_s > 2 * link.round_trip_s();
    auto plan = is_probed ? planner.plan(here, need_checkpoint, with_tail, question) : planner.all_blocks(here);
    if (!plan || plan->end <= here.n_tokens || (plan->pieces.empty() && !plan->checkpoint) ||
        !is_worth(*plan, here.n_tokens)) {
        return std::nullopt;
    }
    limit_to(saved_s(plan->end - here.n_tokens));
    return plan;
}

fetch_result shared_fetch::run(const digest & of, const int32_t * given, size_t n_tokens, bool need_checkpoint) {
    root   = of;
    tokens = given;
    if (access.is_held_back || access.max_tier < link.number || !link.may_read()) {
        return result;
    }
    until           = std::min(until, began + duration_of(link.timeout_s));
    auto here       = look(n_tokens, need_checkpoint);
    result.n_before = here.n_tokens;
    limit_to(saved_s(n_tokens - here.n_tokens));
    all_until = until;
    for (auto plan = choose(here, n_tokens, need_checkpoint); plan; plan = choose(here, n_tokens, need_checkpoint)) {
        if (!get_or_wait(*plan)) {
            break;
        }
        auto now = look(n_tokens, need_checkpoint);
        if (now.ends.size() == here.ends.size() && now.n_tokens == here.n_tokens) {
            break; // who fetched it got nothing
        }
        result.n_entries++;
        here = std::move(now);
    }
    link.count([&](shared_stats & stats) { stats.hits += result.n_entries > 0; });
    result.tier = result.n_entries > 0 ? link.number : 0;
    return result;
}

} // namespace atlas::memory
