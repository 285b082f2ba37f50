// Tier 3 where it is slow, fails or hangs, and where several requests want the same of it.
#include "shared-test.hpp"

#include <atomic>
#include <chrono>
#include <thread>

using namespace memory_test;

CASE(several_requests_fetch_once) {
    const auto place  = std::make_shared<scripted_tier>();
    const auto tokens = some_tokens(1, 3 * BLOCK);
    shared_by_another(place, tokens);
    sharing_server second(place);
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
    sharing_server second(place);
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
    sharing_server second(place);
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
    sharing_server second(place);
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
    sharing_server second(place);
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
    sharing_server second(place, with);
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
    sharing_server second(place);
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
    wait_until([&] {
        is_asked(); // the ping after the first one may have been answered
        return !second.store.stats().shared.problem.empty();
    });
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
    sharing_server second(place);
    memory_access  access;
    access.seconds_per_token = 1.0 / (3 * BLOCK);
    const size_t n_before    = place->calls("probe");
    const auto   fetched     = second.fetch(tokens, false, access);
    CHECK(fetched.n_entries == 0 && fetched.is_too_slow && place->calls("probe") == n_before);
    CHECK(second.store.stats().shared.below_break_even == 1);
    access.seconds_per_token = 100;
    CHECK(second.fetch(tokens, false, access).n_entries == 3);
}

CASE(a_store_starts_without_the_tier) {
    const auto place      = std::make_shared<scripted_tier>();
    place->fails_reading  = (int) tier_failure::unreachable;
    const auto     tokens = some_tokens(1, 2 * BLOCK);
    sharing_server first(place);
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
    sharing_server second(place);
    put_all(second.store, some_tokens(2, BLOCK));
    wait_until([&] { return second.store.stats().shared.write_failures > 0; });
    CHECK(!second.store.stats().shared.problem.empty());
    CHECK(second.fetch(tokens).n_entries == 3);
    place->fails_writing = -1;
    wait_until([&] { return second.store.stats().shared.queue_entries == 0; });
    CHECK(second.store.stats().shared.written_entries == 1 && second.store.stats().shared.problem.empty());
}
