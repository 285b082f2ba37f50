// Tier 3, which servers share: what is sent there, found there, and left alone there.
#include "memory-test.hpp"
#include "scripted-tier.hpp"
#include "shared-codec.hpp"

#include "directory-tier.hpp"

#include <algorithm>
#include <thread>

namespace fs = std::filesystem;
using namespace memory_test;

namespace {

memory_options sharing(std::shared_ptr<tier> place, const std::string & dir = "") {
    memory_options with   = options(dir);
    with.shared.place     = std::move(place);
    with.shared.timeout_s = 60; // a test that waits fails by what it waits for
    return with;
}

struct server {
    std::shared_ptr<scripted_tier> place;
    memory_store                   store;

    explicit server(const std::shared_ptr<scripted_tier> & at) : server(at, sharing(at)) {}
    server(std::shared_ptr<scripted_tier> at, const memory_options & with) : place(std::move(at)), store(with) {
        wait_until([this] { return store.stats().shared.is_tried; });
    }

    fetch_result fetch(const memory_tokens & tokens, bool need_checkpoint = false, const memory_access & access = {}) {
        return store.fetch(ROOT, tokens.data(), tokens.size(), need_checkpoint, access);
    }
};

std::string name_of(const std::string & key) { return "atlas:1:" + ROOT.substr(0, 16) + ":" + key; }

// What one server computed is with the tier.
std::vector<std::string> shared_by_another(const std::shared_ptr<scripted_tier> & place, const memory_tokens & tokens) {
    server     first(place);
    const auto keys = put_all(first.store, tokens);
    CHECK(first.store.flush_shared(60));
    return keys;
}

} // namespace

CASE(what_one_server_computed_another_finds) {
    const auto place  = std::make_shared<scripted_tier>();
    const auto tokens = some_tokens(1, 3 * BLOCK + 5);
    const auto keys   = shared_by_another(place, tokens);
    CHECK(place->look([&](auto & at) { return at.written; }) ==
          (std::vector<std::string>{name_of(keys[0]), name_of(keys[1]), name_of(keys[2]), name_of(keys[3])}));
    CHECK(place->last_ttl == std::chrono::seconds(604800));

    server second(place);
    auto   longer = tokens;
    longer.insert(longer.end(), 40, 3);
    const auto fetched = second.fetch(longer);
    CHECK(fetched.n_before == 0 && fetched.n_entries == 4);
    CHECK(find(second.store, longer).n_tokens == tokens.size());
    const auto stats = second.store.stats().shared;
    CHECK(stats.lookups == 1 && stats.hits == 1 && stats.read_entries == 4 && stats.written_entries == 0);
    CHECK(stats.asked >= 5 && stats.found == 4 && stats.problem.empty());

    // what is here is not asked for again
    const auto n_probes = place->calls("probe");
    CHECK(second.store.fetch(ROOT, tokens.data(), tokens.size(), false, {}).n_entries == 0);
    CHECK(place->calls("probe") == n_probes);
}

CASE(the_tier_is_told_how_large_values_can_be) {
    server         of(std::make_shared<scripted_tier>());
    const uint64_t around = memory::header_bytes(memory::MAX_TOKENS) + 1024; // of an entry, and what a seal adds
    of.store.expect_entries_up_to(100000);
    CHECK(of.place->limit >= 100000 && of.place->limit <= 100000 + around);
    of.store.expect_entries_up_to(50000); // of another kind
    CHECK(of.place->limit >= 100000);
    of.store.expect_entries_up_to(UINT64_MAX);
    CHECK(of.place->limit >= 512ull << 20);
}

CASE(only_what_is_missing_is_fetched) {
    const auto place  = std::make_shared<scripted_tier>();
    const auto tokens = some_tokens(1, 4 * BLOCK);
    const auto keys   = shared_by_another(place, tokens);
    server     second(place);
    put_all(second.store, slice(tokens, 0, 2 * BLOCK));
    const auto fetched = second.fetch(tokens);
    CHECK(fetched.n_before == 2 * BLOCK && fetched.n_entries == 2);
    CHECK(place->got == (std::vector<std::string>{name_of(keys[2]), name_of(keys[3])}));
    CHECK(find(second.store, tokens).n_tokens == 4 * BLOCK);
}

CASE(what_is_there_is_not_sent_twice) {
    const auto place  = std::make_shared<scripted_tier>();
    const auto tokens = some_tokens(1, 3 * BLOCK);
    shared_by_another(place, tokens);
    shared_by_another(place, tokens);
    CHECK(place->calls("put") == 3);
    server third(place);
    third.fetch(tokens);
    find(third.store, tokens);
    CHECK(third.store.flush_shared(60));
    CHECK(place->calls("put") == 3);
}

CASE(a_request_may_keep_away_from_the_shared_tier) {
    const auto place  = std::make_shared<scripted_tier>();
    const auto tokens = some_tokens(1, 2 * BLOCK);
    {
        server        first(place);
        memory_access access;
        access.max_tier = 2;
        first.store.put(make_entry(entry_kind::block, ROOT, slice(tokens, 0, BLOCK), 100), "", access);
        CHECK(first.store.flush_shared(60) && place->calls("put") == 0);
    }
    shared_by_another(place, tokens);
    const auto    n_probes = place->calls("probe");
    server        second(place);
    memory_access access;
    access.max_tier = 2;
    CHECK(second.fetch(tokens, false, access).n_entries == 0);
    access.max_tier     = 10;
    access.is_held_back = true; // the root is not known yet
    CHECK(second.store.fetch(ROOT, tokens.data(), tokens.size(), false, access).n_entries == 0);
    second.store.put(make_entry(entry_kind::block, ROOT, some_tokens(9, BLOCK), 100), "", access);
    CHECK(second.store.flush_shared(60) && place->calls("probe") == n_probes);
}

CASE(state_that_was_held_back_is_shared_under_its_root) {
    const auto    place  = std::make_shared<scripted_tier>();
    const auto    tokens = some_tokens(1, BLOCK);
    server        first(place);
    memory_access access;
    access.is_held_back = true;
    first.store.put(make_entry(entry_kind::block, root_of(7), tokens, 100), "", access);
    first.store.adopt(root_of(7), ROOT);
    CHECK(first.store.flush_shared(60));
    CHECK(place->values.count(name_of(memory_store::key_of(entry_kind::block, ROOT, tokens.data(), BLOCK))) == 1);
}

CASE(checkpoints_are_found_wherever_they_were_made) {
    const auto tokens = some_tokens(1, 12 * BLOCK + 7);
    for (const size_t at : {12 * BLOCK + 7, 12 * BLOCK, 11 * BLOCK + 3, 7 * BLOCK, 2 * BLOCK + 15}) {
        const auto place = std::make_shared<scripted_tier>();
        {
            server     first(place);
            const auto keys   = put_all(first.store, tokens);
            const auto n      = at / BLOCK;
            const auto parent = n == 0 ? ROOT : keys[n - 1];
            put(first.store, entry_kind::checkpoint, parent, slice(tokens, n * BLOCK, at));
            put(first.store, entry_kind::checkpoint, keys[0], slice(tokens, BLOCK, BLOCK + 1));
            CHECK(first.store.flush_shared(60));
        }
        server second(place);
        auto   longer = tokens;
        longer.insert(longer.end(), 3 * BLOCK, 3);
        second.fetch(longer, true);
        CHECK(find(second.store, longer, true).n_tokens == at);
    }
}

CASE(blocks_without_a_checkpoint_are_left_where_one_is_needed) {
    const auto place  = std::make_shared<scripted_tier>();
    const auto tokens = some_tokens(1, 12 * BLOCK + 7);
    shared_by_another(place, tokens);
    server second(place);
    CHECK(second.fetch(tokens, true).n_entries == 0 && place->calls("get") == 0);
}

CASE(a_checkpoint_alone_is_fetched_for_blocks_that_are_here) {
    const auto  place  = std::make_shared<scripted_tier>();
    const auto  tokens = some_tokens(1, 3 * BLOCK);
    std::string name;
    {
        server     first(place);
        const auto keys = put_all(first.store, tokens);
        name = name_of(put(first.store, entry_kind::checkpoint, keys[1], slice(tokens, 2 * BLOCK, 2 * BLOCK + 4)));
        CHECK(first.store.flush_shared(60));
    }
    server second(place);
    put_all(second.store, tokens);
    CHECK(second.fetch(tokens, true).n_entries == 1 && place->got == std::vector<std::string>{name});
    CHECK(find(second.store, tokens, true).n_tokens == 2 * BLOCK + 4);
}

// Each byte of a value counts.
CASE(wrong_bytes_are_a_miss_and_removed) {
    const auto tokens = some_tokens(1, 3 * BLOCK);
    for (int how = 0; how < 6; how++) {
        const auto place = std::make_shared<scripted_tier>();
        const auto keys  = shared_by_another(place, tokens);
        place->look([&](auto & at) {
            std::string & value = at.values[name_of(keys[1])];
            switch (how) {
                case 0:  value[5] ^= 1; break;
                case 1:  value.back() ^= 1; break;
                case 2:  value.pop_back(); break;
                case 3:  value.clear(); break;
                case 4:  value = at.values[name_of(keys[2])]; break; // another entry's
                default: value += "more";
            }
            return 0;
        });
        server second(place);
        CHECK(second.fetch(tokens).n_entries == 1);
        CHECK(find(second.store, tokens).n_tokens == BLOCK);
        CHECK(second.store.stats().shared.damaged == 1);
        wait_until([&] { return place->look([&](auto & at) { return at.removed.size(); }) == 1; });
        CHECK(place->removed[0] == name_of(keys[1]));
    }
}

CASE(what_a_server_cannot_read_is_a_miss_and_stays) {
    struct refusing : memory::shared_codec {
        explicit refusing(memory::unwrapping result) : result(result) {}
        const memory::unwrapping result;
        memory::unwrapping       unwrap(const std::string &, tier_value &, const memory::room_for &) const override {
            return result;
        }
    };
    for (const auto result : {memory::unwrapping::foreign, memory::unwrapping::no_room}) {
        const auto place  = std::make_shared<scripted_tier>();
        const auto tokens = some_tokens(1, 3 * BLOCK);
        shared_by_another(place, tokens);
        auto with         = sharing(place);
        with.shared.codec = std::make_shared<const refusing>(result);
        server second(place, with);
        CHECK(second.fetch(tokens).n_entries == 0);
        const auto stats = second.store.stats().shared;
        CHECK(stats.damaged == 0 && stats.read_entries == 0 && stats.problem.empty());
        CHECK(place->look([](auto & at) { return at.removed.empty() && at.values.size() == 3; }));
    }
}

CASE(what_goes_between_the_question_and_the_answer_shortens_the_match) {
    const auto place  = std::make_shared<scripted_tier>();
    const auto tokens = some_tokens(1, 3 * BLOCK);
    shared_by_another(place, tokens);
    server second(place);
    place->forgets_after_probe = true;
    CHECK(second.fetch(tokens).n_entries == 0 && second.store.stats().shared.problem.empty());
}

CASE(several_requests_fetch_once) {
    const auto place  = std::make_shared<scripted_tier>();
    const auto tokens = some_tokens(1, 3 * BLOCK);
    shared_by_another(place, tokens);
    server second(place);
    second.fetch(slice(tokens, 0, BLOCK)); // so that it is known to work
    const size_t n_before = place->calls("get");
    place->hold_up("get");
    std::vector<std::thread> threads;
    std::atomic<size_t>      n_found{0};
    for (int i = 0; i < 8; i++) {
        threads.emplace_back([&] {
            const auto fetched = second.store.fetch(ROOT, tokens.data(), tokens.size(), false, {});
            n_found += fetched.n_entries > 0;
        });
    }
    wait_until([&] { return second.store.stats().shared.waited == 7; });
    place->resume();
    for (auto & thread : threads) {
        thread.join();
    }
    CHECK(n_found == 8 && place->calls("get") == n_before + 2);
    CHECK(find(second.store, tokens).n_tokens == 3 * BLOCK);
}

CASE(a_client_that_left_ends_its_wait) {
    const auto place  = std::make_shared<scripted_tier>();
    const auto tokens = some_tokens(1, 3 * BLOCK);
    shared_by_another(place, tokens);
    server second(place);
    second.fetch(slice(tokens, 0, BLOCK));
    place->hold_up("get");
    std::thread fetching([&] { second.store.fetch(ROOT, tokens.data(), tokens.size(), false, {}); });
    wait_until([&] { return place->calls("get") == 2; });
    std::atomic<bool> is_gone{false};
    std::thread       waiting(
        [&] { second.store.fetch(ROOT, tokens.data(), tokens.size(), false, {}, [&] { return is_gone.load(); }); });
    wait_until([&] { return second.store.stats().shared.waited == 1; });
    is_gone = true;
    waiting.join(); // though the first still waits for the tier
    place->resume();
    fetching.join();
}

CASE(no_more_time_is_spent_than_half_of_what_it_saves) {
    const auto place  = std::make_shared<scripted_tier>();
    const auto tokens = some_tokens(1, 3 * BLOCK);
    shared_by_another(place, tokens);
    server second(place);
    second.fetch(slice(tokens, 0, BLOCK));
    memory_access access;
    access.seconds_per_token = 0.3 / (double) (2 * BLOCK); // two blocks save 0.3 s
    place->hold_up("get");
    const auto began = std::chrono::steady_clock::now();
    CHECK(second.store.fetch(ROOT, tokens.data(), tokens.size(), false, access).n_entries == 0);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
    CHECK(took.count() >= 0.1 && took.count() < 30);
    CHECK(second.store.stats().shared.timeouts == 1 && second.store.stats().shared.problem.empty());
}

CASE(what_is_too_slow_is_left_but_tried_now_and_then) {
    const auto place  = std::make_shared<scripted_tier>();
    const auto tokens = some_tokens(1, 3 * BLOCK);
    shared_by_another(place, tokens);
    server second(place);
    second.fetch(slice(tokens, 0, BLOCK));
    memory_access access;
    access.seconds_per_token = 0.02;
    access.seconds_per_byte  = 1; // putting it back alone would take so long
    const size_t n_before    = place->calls("get");
    for (int i = 0; i < 31; i++) {
        const auto fetched = second.store.fetch(ROOT, tokens.data(), tokens.size(), false, access);
        CHECK(fetched.n_entries == 0 && fetched.is_too_slow);
    }
    CHECK(second.store.stats().shared.below_break_even == 31 && place->calls("get") == n_before);
    CHECK(second.store.fetch(ROOT, tokens.data(), tokens.size(), false, access).n_entries == 2);
}

CASE(a_tier_that_fails_is_left_alone_until_it_works) {
    const auto place  = std::make_shared<scripted_tier>();
    const auto tokens = some_tokens(1, 3 * BLOCK);
    shared_by_another(place, tokens);
    server second(place);
    second.fetch(slice(tokens, 0, BLOCK));
    place->fails_reading = (int) tier_failure::unreachable;
    CHECK(second.store.fetch(ROOT, tokens.data(), tokens.size(), false, {}).n_entries == 0);
    const auto stats = second.store.stats().shared;
    CHECK(stats.problem == "scripted://here: it does not work" && stats.read_failures == 1);
    const auto n_probes = place->calls("probe");
    for (int i = 0; i < 100; i++) {
        CHECK(second.store.fetch(ROOT, tokens.data(), tokens.size(), false, {}).n_entries == 0);
    }
    CHECK(place->calls("probe") == n_probes);
    place->fails_reading = -1;
    wait_until([&] { return second.store.stats().shared.problem.empty(); }); // found by its own thread
    CHECK(second.store.fetch(ROOT, tokens.data(), tokens.size(), false, {}).n_entries == 2);
}

CASE(three_late_answers_open_the_breaker) {
    const auto place  = std::make_shared<scripted_tier>();
    const auto tokens = some_tokens(1, 3 * BLOCK);
    shared_by_another(place, tokens);
    memory_options with   = sharing(place);
    with.shared.timeout_s = 0.3;
    server second(place, with);
    second.fetch(slice(tokens, 0, BLOCK));
    place->hold_up("probe");
    for (int i = 0; i < 3; i++) {
        CHECK(second.store.stats().shared.problem.empty());
        second.store.fetch(ROOT, tokens.data(), tokens.size(), false, {});
    }
    CHECK(second.store.stats().shared.problem == "scripted://here: too late");
    CHECK(second.store.stats().shared.timeouts == 3);
    place->resume();
    wait_until([&] { return second.store.stats().shared.problem.empty(); });
}

CASE(one_answer_that_is_too_late_for_a_short_prompt_has_the_tier_tried) {
    const auto place  = std::make_shared<scripted_tier>();
    const auto tokens = some_tokens(1, 3 * BLOCK);
    shared_by_another(place, tokens);
    server second(place);
    second.fetch(slice(tokens, 0, BLOCK));
    memory_access access;
    access.seconds_per_token = 0.2 / (2 * BLOCK); // so that there is less time than says anything of the tier
    const auto is_asked      = [&] {
        const size_t n = place->calls("probe");
        second.fetch(tokens, false, access);
        return place->calls("probe") > n;
    };
    // it hangs: its own thread finds that out, and whoever comes meanwhile does not wait
    place->hold_up("probe");
    wait_until(is_asked);
    CHECK(second.store.stats().shared.timeouts == 1 && second.store.stats().shared.problem.empty());
    place->fails_reading = (int) tier_failure::late;
    wait_until([&] { return !second.store.stats().shared.problem.empty(); });
    CHECK(!is_asked());
    place->fails_reading = -1;
    place->resume();
    wait_until([&] { return second.store.stats().shared.problem.empty(); });
    CHECK(second.fetch(tokens).n_entries == 2);
}

CASE(a_tier_whose_answer_takes_longer_than_computing_is_not_asked) {
    const auto place  = std::make_shared<scripted_tier>();
    const auto tokens = some_tokens(1, 3 * BLOCK);
    shared_by_another(place, tokens);
    place->usual_s = 1;
    server        second(place);
    memory_access access;
    access.seconds_per_token = 1.0 / (3 * BLOCK);
    const size_t n_before    = place->calls("probe");
    const auto   fetched     = second.fetch(tokens, false, access);
    CHECK(fetched.n_entries == 0 && fetched.is_too_slow && place->calls("probe") == n_before);
    CHECK(second.store.stats().shared.below_break_even == 1);
    access.seconds_per_token = 100;
    CHECK(second.fetch(tokens, false, access).n_entries == 3);
}

CASE(a_store_starts_without_the_tier) {
    const auto place     = std::make_shared<scripted_tier>();
    place->fails_reading = (int) tier_failure::unreachable;
    const auto tokens    = some_tokens(1, 2 * BLOCK);
    server     first(place);
    wait_until([&] { return !first.store.stats().shared.problem.empty(); });
    put_all(first.store, tokens);
    CHECK(first.store.fetch(ROOT, tokens.data(), tokens.size(), false, {}).n_entries == 0);
    CHECK(!first.store.flush_shared(60));
    CHECK(find(first.store, tokens).n_tokens == 2 * BLOCK);
    place->fails_reading = -1;
    wait_until([&] { return first.store.stats().shared.written_entries == 2; });
}

CASE(a_full_tier_is_read_on) {
    const auto place  = std::make_shared<scripted_tier>();
    const auto tokens = some_tokens(1, 3 * BLOCK);
    shared_by_another(place, tokens);
    place->fails_writing = (int) tier_failure::full;
    server second(place);
    put_all(second.store, some_tokens(2, BLOCK));
    wait_until([&] { return second.store.stats().shared.write_failures > 0; });
    CHECK(!second.store.stats().shared.problem.empty());
    CHECK(second.fetch(tokens).n_entries == 3);
    place->fails_writing = -1;
    wait_until([&] { return second.store.stats().shared.queue_entries == 0; });
    CHECK(second.store.stats().shared.written_entries == 1 && second.store.stats().shared.problem.empty());
}

CASE(a_full_queue_drops_the_newest) {
    const auto     place    = std::make_shared<scripted_tier>();
    memory_options with     = sharing(place);
    with.shared.queue_bytes = 2500;
    server first(place, with);
    place->hold_up("probe");
    const auto keys = put_all(first.store, some_tokens(1, 4 * BLOCK)); // 1,000 bytes and tokens each
    CHECK(first.store.stats().shared.queue_entries == 2 && first.store.stats().shared.drops == 2);
    CHECK(first.store.stats().shared.queue_bytes <= 2500);
    place->resume();
    CHECK(first.store.flush_shared(60));
    CHECK(place->written == (std::vector<std::string>{name_of(keys[0]), name_of(keys[1])}));
    // what was dropped is sent when it is next used, beginnings first
    find(first.store, some_tokens(1, 4 * BLOCK));
    CHECK(first.store.flush_shared(60));
    CHECK(place->written ==
          (std::vector<std::string>{name_of(keys[0]), name_of(keys[1]), name_of(keys[2]), name_of(keys[3])}));
}

CASE(only_what_is_reused_is_sent_where_that_is_wanted) {
    const auto     place = std::make_shared<scripted_tier>();
    memory_options with  = sharing(place);
    with.shared.write    = share_policy::reused;
    const auto tokens    = some_tokens(1, 2 * BLOCK);
    server     first(place, with);
    put_all(first.store, tokens);
    CHECK(first.store.flush_shared(60) && place->calls("put") == 0);
    find(first.store, tokens);
    CHECK(first.store.flush_shared(60) && place->calls("put") == 2);
    memory_access access;
    access.session_id = "ada";
    first.store.put(make_entry(entry_kind::block, ROOT, some_tokens(2, BLOCK), 100), "", access);
    CHECK(first.store.flush_shared(60) && place->calls("put") == 3);

    with.shared.write = share_policy::none;
    server second(place, with);
    put_all(second.store, some_tokens(3, BLOCK));
    find(second.store, some_tokens(3, BLOCK));
    CHECK(second.store.flush_shared(60) && place->calls("put") == 3);
    CHECK(second.fetch(tokens).n_entries == 2);
}

CASE(a_tail_that_was_superseded_is_not_sent) {
    const auto place  = std::make_shared<scripted_tier>();
    const auto tokens = some_tokens(1, BLOCK);
    server     first(place);
    place->hold_up("probe");
    const auto tail = put(first.store, entry_kind::tail, ROOT, slice(tokens, 0, 4));
    put(first.store, entry_kind::tail, ROOT, slice(some_tokens(2, 9), 0, 4)); // holds the sharer up, with the first
    const auto later = put(first.store, entry_kind::tail, ROOT, slice(tokens, 0, 8), 1000, tail);
    place->resume();
    CHECK(first.store.flush_shared(60));
    CHECK(place->values.count(name_of(later)) == 1);
}

CASE(what_was_used_is_kept_ends_before_beginnings) {
    const auto     place = std::make_shared<scripted_tier>();
    memory_options with  = sharing(place);
    with.shared.keep_s   = 0.2;
    const auto tokens    = some_tokens(1, 3 * BLOCK);
    server     first(place, with);
    const auto keys = put_all(first.store, tokens);
    CHECK(first.store.flush_shared(60));
    place->look([&](auto & at) { return at.values.erase(name_of(keys[1])); });
    find(first.store, tokens);
    wait_until([&] { return first.store.stats().shared.kept > 0 && first.store.stats().shared.written_entries == 4; });
    CHECK(place->look([&](auto & at) { return at.kept; }) ==
          (std::vector<std::string>{name_of(keys[2]), name_of(keys[1]), name_of(keys[0])}));
    CHECK(place->look([&](auto & at) { return at.values.count(name_of(keys[1])); }) == 1); // sent again
}

CASE(what_is_deleted_leaves_the_shared_tier) {
    const auto place  = std::make_shared<scripted_tier>();
    const auto tokens = some_tokens(1, 2 * BLOCK);
    server     first(place);
    const auto keys = put_all(first.store, tokens);
    first.store.extend_session("ada", 0, keys[0], BLOCK);
    first.store.extend_session("ada", 1, keys[1], 2 * BLOCK);
    CHECK(first.store.flush_shared(60));
    CHECK(first.store.remove_session("ada", true));
    wait_until([&] { return place->look([](auto & at) { return at.values.empty(); }); });
}

CASE(a_tier_that_cannot_be_asked_is_read_at_once) {
    const auto place  = std::make_shared<scripted_tier>(false);
    const auto tokens = some_tokens(1, 3 * BLOCK);
    shared_by_another(place, slice(tokens, 0, 2 * BLOCK));
    server second(place);
    CHECK(second.fetch(tokens).n_entries == 2 && find(second.store, tokens).n_tokens == 2 * BLOCK);
    CHECK(second.store.stats().shared.asked == 0);
}

CASE(what_is_on_its_way_counts) {
    const auto place  = std::make_shared<scripted_tier>();
    const auto tokens = some_tokens(1, 3 * BLOCK);
    shared_by_another(place, tokens);
    server second(place);
    second.store.expect_blocks_of(1000);
    for (size_t n = 1; n <= 2; n++) { // the first by what a block has, the next by what came
        const size_t n_before = place->calls("get");
        place->hold_up("get");
        std::thread fetching([&] { second.fetch(slice(tokens, 0, n * BLOCK)); });
        wait_until([&] { return place->calls("get") > n_before; });
        const auto stats = second.store.stats();
        CHECK(stats.held_bytes >= 2 * 1000 && stats.held_bytes <= stats.held_limit);
        place->resume();
        fetching.join();
        CHECK(second.store.stats().held_bytes == 0 && find(second.store, tokens).n_tokens == n * BLOCK);
    }
}

CASE(a_budget_of_ram_holds_for_what_is_fetched) {
    const auto place  = std::make_shared<scripted_tier>();
    const auto tokens = some_tokens(1, 8 * BLOCK);
    shared_by_another(place, tokens);
    memory_options with = sharing(place);
    with.ram_bytes      = 3500;
    server second(place, with);
    CHECK(second.fetch(tokens).n_entries == 3);
    CHECK(second.store.stats().ram_bytes <= 3500 && find(second.store, tokens).n_tokens == 3 * BLOCK);
}

CASE(what_is_fetched_goes_to_the_disk_too) {
    const auto place  = std::make_shared<scripted_tier>();
    const auto tokens = some_tokens(1, 3 * BLOCK);
    shared_by_another(place, tokens);
    memory_options with = sharing(place, dir);
    with.ram_bytes      = 0;
    server second(place, with);
    wait_indexed(second.store);
    CHECK(second.fetch(tokens).n_entries == 3 && find(second.store, tokens).n_tokens == 3 * BLOCK);
    flush(second.store);
    CHECK(second.store.stats().disk_entries == 3);
}

CASE(a_directory_is_a_tier) {
    const auto        tokens = some_tokens(1, 3 * BLOCK + 5);
    const std::string shared = dir + "/mount";
    fs::create_directory(shared);
    std::vector<std::string> keys;
    {
        memory_store first(sharing(std::make_shared<directory_tier>(shared, MiB, false)));
        keys = put_all(first, tokens);
        CHECK(first.flush_shared(60));
    }
    // files and layout are those of a memory path
    {
        memory_store as_path(options(shared));
        wait_indexed(as_path);
        CHECK(find(as_path, tokens).n_tokens == tokens.size() && as_path.stats().foreign_files == 0);
    }
    memory_store second(sharing(std::make_shared<directory_tier>(shared, MiB, false)));
    wait_until([&] { return second.fetch(ROOT, tokens.data(), tokens.size(), false, {}).n_entries > 0; });
    CHECK(find(second, tokens).n_tokens == tokens.size());

    const auto other = some_tokens(2, BLOCK);
    fs::rename(shared, shared + ".away");
    CHECK(second.fetch(ROOT, other.data(), other.size(), false, {}).n_entries == 0);
    CHECK(second.stats().shared.problem.find(shared) != std::string::npos);
    fs::rename(shared + ".away", shared);
    wait_until([&] { return second.stats().shared.problem.empty(); });
}
