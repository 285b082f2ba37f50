// A policy of the program's, on the thread that asks it: what it is told, and what becomes of its answers.
#include "atlas-facts.h"
#include "atlas-policy-runner.hpp"
#include "memory-test.hpp"

#include <atomic>
#include <future>
#include <map>
#include <stdexcept>
#include <thread>

using namespace memory_test;

static constexpr uint64_t ENTRY = 1000 + BLOCK * 4;

using touches_of   = const std::vector<MemoryTouch> &;
using evictions_of = const std::vector<MemoryEviction> &;

// Answers with what a function says.
struct saying : AtlasMemoryPolicy {
    std::function<std::vector<int64_t>(int, touches_of, evictions_of)> says;
    std::function<bool(int, const MemoryTouch &)> admits = [](int, const MemoryTouch &) { return true; };

    explicit saying(decltype(says) says) : says(std::move(says)) {}

    std::vector<int64_t> evict_order(int tier, touches_of touches, evictions_of evictions) override {
        return says(tier, touches, evictions);
    }
    bool admit(int tier, const MemoryTouch & touch) override { return admits(tier, touch); }
};

static std::vector<int64_t> last_goes_first(int, touches_of touches, evictions_of) {
    std::vector<int64_t> priorities;
    for (const auto & touch : touches) {
        priorities.push_back(-touch.now);
    }
    return priorities;
}

static std::vector<int64_t> as_touched(int, touches_of touches, evictions_of) {
    std::vector<int64_t> priorities;
    for (const auto & touch : touches) {
        priorities.push_back(touch.now);
    }
    return priorities;
}

static std::string put_block(memory_store & store, uint32_t seed) {
    return put(store, entry_kind::block, ROOT, some_tokens(seed, BLOCK));
}

static void wait_for_events(const policy_runner & runner, uint64_t n) {
    wait_until([&] { return runner.stats().events >= n; });
}

CASE(policy_of_the_program_decides_what_goes) {
    memory_store      store(options("", 4 * ENTRY));
    policy_runner     runner(store, std::make_shared<saying>(last_goes_first));
    const std::string first = put_block(store, 1), second = put_block(store, 2), third = put_block(store, 3),
                      last = put_block(store, 4);
    wait_for_events(runner, 4);
    put_block(store, 5);
    CHECK(store.contains(first) && store.contains(third) && !store.contains(last));
    wait_for_events(runner, 6); // a touch and an eviction
    put_block(store, 6); // in place of the fifth
    CHECK(store.contains(first) && store.contains(second) && store.contains(third));

    const auto stats = runner.stats();
    CHECK(stats.tiers == std::vector<int>{1} && stats.batches > 0 && stats.failures == 0 && stats.problem.empty());
}

CASE(policy_is_told_what_happened_in_each_tier) {
    const uint64_t     file = memory::file_bytes(BLOCK, 1000);
    memory_store       store(options(dir, 8 * ENTRY, 3 * file));
    std::mutex         mutex;
    std::map<int, int> n_touches, n_evictions;
    MemoryTouch        block, tail;
    policy_runner      runner(store, std::make_shared<saying>([&](int tier, touches_of touches, evictions_of gone) {
                             const std::lock_guard<std::mutex> held(mutex);
                             n_touches[tier] += (int) touches.size();
                             n_evictions[tier] += (int) gone.size();
                             for (const auto & each : touches) {
                                 (each.kind == MemoryKind::TAIL ? tail : block) = each;
                             }
                             return std::vector<int64_t>();
                              }));
    CHECK((runner.stats().tiers == std::vector<int>{1, 2}));
    const auto tokens = some_tokens(1, BLOCK + 5);
    store.put(make_entry(entry_kind::block, ROOT, slice(tokens, 0, BLOCK), 1000), "", {cache_strategy::lfu});
    wait_for_events(runner, 1);
    {
        const std::lock_guard<std::mutex> held(mutex);
        CHECK(block.key != 0 && block.parent == 0 && block.now == 1 && block.size >= 1000 && block.saving > 0);
        CHECK(block.kind == MemoryKind::BLOCK && block.strategy == MemoryStrategy::LFU);
    }
    put(store, entry_kind::tail, memory_store::key_of(entry_kind::block, ROOT, tokens.data(), BLOCK),
        slice(tokens, BLOCK, BLOCK + 5));
    wait_for_events(runner, 2);
    {
        const std::lock_guard<std::mutex> held(mutex);
        CHECK(tail.parent == block.key && tail.now == 2 && tail.strategy == MemoryStrategy::ADAPTIVE);
    }
    for (uint32_t seed = 2; seed < 6; seed++) {
        put_block(store, seed);
        flush(store);
    }
    const auto evicted = store.stats().evicted_disk;
    CHECK(evicted > 0 && store.stats().evicted_ram == 0);
    wait_for_events(runner, 6 + evicted);
    const std::lock_guard<std::mutex> held(mutex);
    CHECK(n_touches[1] == 6 && n_touches[2] == 6);
    CHECK(n_evictions[1] == 0 && n_evictions[2] == (int) evicted);
}

CASE(policy_keeps_entries_out_of_a_tier) {
    memory_store store(options("", 4 * ENTRY));
    const auto   policy = std::make_shared<saying>(as_touched);
    policy->admits = [](int tier, const MemoryTouch & touch) { return tier == 1 && touch.now != 2 && touch.now != 3; };
    policy_runner     runner(store, policy);
    const std::string oldest = put_block(store, 1), refused = put_block(store, 2), refused_too = put_block(store, 3),
                      young = put_block(store, 4);
    wait_for_events(runner, 4);
    put_block(store, 5);
    CHECK(store.contains(oldest) && !store.contains(refused) && store.contains(refused_too));
    put_block(store, 6);
    CHECK(store.contains(oldest) && !store.contains(refused_too) && store.contains(young));
}

// What it answers at first is wrong, in some way. The order of the server holds then, which is LRU.
static void check_failing(const decltype(saying::says) & wrong, const std::string & what) {
    memory_store      store(options("", 4 * ENTRY));
    std::atomic<bool> is_wrong{true};
    policy_runner     runner(store, std::make_shared<saying>([&](int tier, touches_of touches, evictions_of gone) {
                             return is_wrong ? wrong(tier, touches, gone) : last_goes_first(tier, touches, gone);
                             }));
    const std::string oldest = put_block(store, 1), second = put_block(store, 2), third = put_block(store, 3);
    put_block(store, 4);
    wait_for_events(runner, 4);
    CHECK(runner.stats().failures > 0);
    if (runner.stats().problem.find(what) == std::string::npos) {
        std::fprintf(stderr, "%s, not %s\n", runner.stats().problem.c_str(), what.c_str());
    }
    CHECK(runner.stats().problem.find(what) != std::string::npos);
    put_block(store, 5);
    CHECK(!store.contains(oldest) && store.contains(second));
    wait_for_events(runner, 6);

    const uint64_t n_failures = runner.stats().failures;
    is_wrong                  = false;
    const auto last           = put_block(store, 6);
    CHECK(!store.contains(second));
    wait_for_events(runner, 8);
    CHECK(runner.stats().problem.empty() && runner.stats().failures == n_failures);
    put_block(store, 7); // by its order again
    CHECK(!store.contains(last) && store.contains(third));
}

CASE(policy_that_throws) {
    check_failing([](int, touches_of, evictions_of) -> std::vector<int64_t> { throw std::runtime_error("tired"); },
                  "tired");
    check_failing([](int, touches_of, evictions_of) -> std::vector<int64_t> { throw std::runtime_error(""); },
                  "says nothing");
    check_failing([](int, touches_of, evictions_of) -> std::vector<int64_t> { throw 7; }, "no std::exception");
    check_failing([](int, touches_of, evictions_of) -> std::vector<int64_t> { throw std::bad_alloc(); }, "bad_alloc");
}

CASE(policy_that_answers_what_it_may_not) {
    check_failing([](int, touches_of touches, evictions_of) { return std::vector<int64_t>(touches.size() + 1); },
                  "priorities for");
    check_failing(
        [](int, touches_of touches, evictions_of) { return std::vector<int64_t>(touches.size() == 1 ? 2 : 1); },
        "priorities for");
    for (const int64_t wrong :
         {int64_t{1} << ATLAS_PRIORITY_BITS, -(int64_t{1} << ATLAS_PRIORITY_BITS), INT64_MAX, INT64_MIN}) {
        check_failing(
            [wrong](int, touches_of touches, evictions_of) { return std::vector<int64_t>(touches.size(), wrong); },
            "more than 62 bits");
    }
}

CASE(policy_that_throws_when_it_is_to_admit) {
    memory_store store(options("", 4 * ENTRY));
    const auto   policy = std::make_shared<saying>(last_goes_first);
    policy->admits      = [](int, const MemoryTouch &) -> bool { throw std::runtime_error("no idea"); };
    policy_runner     runner(store, policy);
    const std::string oldest = put_block(store, 1);
    for (uint32_t seed = 2; seed < 5; seed++) {
        put_block(store, seed);
    }
    wait_for_events(runner, 4);
    CHECK(runner.stats().problem == "no idea");
    put_block(store, 5);
    CHECK(!store.contains(oldest));
}

CASE(nothing_waits_for_a_slow_policy_but_its_end) {
    memory_store                 store(options("", 4 * ENTRY));
    std::promise<void>           may_go_on;
    const auto                   held = may_go_on.get_future().share();
    std::atomic<int>             n_calls{0};
    auto                         policy  = std::make_shared<saying>([&](int, touches_of touches, evictions_of) {
        n_calls++;
        held.wait();
        return std::vector<int64_t>(touches.size());
    });
    const std::weak_ptr<saying>  watched = policy;
    std::optional<policy_runner> runner(std::in_place, store, std::move(policy));
    put_block(store, 1);
    wait_until([&] { return n_calls == 1; });
    for (uint32_t seed = 2; seed < 5000; seed++) { // more than one batch, and much more than fits
        put_block(store, seed);
    }
    CHECK(store.stats().ram_entries == 4 && n_calls == 1 && runner->stats().events == 0);

    std::atomic<bool> has_ended{false};
    std::thread       ending([&] {
        runner->end();
        has_ended = true;
    });
    CHECK(!has_ended && !watched.expired());
    may_go_on.set_value();
    ending.join();
    CHECK(n_calls == 1 && watched.expired()); // what waited is not handed over any more
    runner->end();
    runner.reset();
}

CASE(full_batches_follow_each_other) {
    memory_store       store(options("", 64 * ENTRY));
    std::promise<void> may_go_on;
    const auto         held = may_go_on.get_future().share();
    policy_runner      runner(store, std::make_shared<saying>([&](int, touches_of, evictions_of) {
                             held.wait();
                             return std::vector<int64_t>();
                              }));
    for (uint32_t seed = 1; seed <= 3000; seed++) {
        put_block(store, seed);
    }
    may_go_on.set_value();
    wait_for_events(runner, 3000 + store.stats().evicted_ram);
    CHECK(runner.stats().late >= 4);
}
