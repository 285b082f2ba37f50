// Several tiers beyond this machine: the order in which they are asked, what is sent to which, and that they come and go.
#include "memory-test.hpp"
#include "scripted-tier.hpp"

#include <algorithm>
#include <thread>

using namespace memory_test;

namespace {

using place_ptr = std::shared_ptr<scripted_tier>;

shared_options linked(const place_ptr & place) {
    shared_options with;
    with.place     = place;
    with.timeout_s = 60; // a test that waits fails by what it waits for
    return with;
}

struct server {
    memory_store store;

    server(const place_ptr & third, const place_ptr & fourth) : store(options_of(third)) {
        store.add_tier(4, linked(fourth));
        wait_until([&] {
            const auto linked = store.stats().linked;
            return std::all_of(linked.begin(), linked.end(), [](const shared_stats & one) { return one.is_tried; });
        });
    }

    static memory_options options_of(const place_ptr & third) {
        memory_options with = options("");
        with.shared         = linked(third);
        return with;
    }

    shared_stats stats(int number) {
        for (const auto & one : store.stats().linked) {
            if (one.number == number) {
                return one;
            }
        }
        CHECK(!"there is no such tier");
        std::abort();
    }

    fetch_result fetch(const memory_tokens & tokens, const memory_access & access = {}) {
        return store.fetch(ROOT, tokens.data(), tokens.size(), false, access);
    }
};

place_ptr make_place() { return std::make_shared<scripted_tier>(); }

} // namespace

CASE(what_is_put_goes_to_each_tier) {
    const auto third = make_place(), fourth = make_place();
    const auto tokens = some_tokens(1, 3 * BLOCK);
    server     one(third, fourth);
    const auto keys = put_all(one.store, tokens);
    CHECK(one.store.flush_shared(60));
    CHECK(third->written.size() == 3 && third->written == fourth->written);
    memory_access access;
    access.max_tier = 3;
    one.store.put(make_entry(entry_kind::block, ROOT, some_tokens(2, BLOCK), 100), "", access);
    CHECK(one.store.flush_shared(60));
    CHECK(third->written.size() == 4 && fourth->written.size() == 3);
    CHECK(one.stats(3).written_entries == 4 && one.stats(4).written_entries == 3);
}

CASE(tiers_are_asked_in_order_for_what_is_missing) {
    const auto third = make_place(), fourth = make_place();
    const auto tokens = some_tokens(1, 4 * BLOCK);
    {
        server first(third, fourth);
        put_all(first.store, tokens);
        CHECK(first.store.flush_shared(60));
    }
    const auto names = third->written;
    third->values.erase(names[2]);
    third->values.erase(names[3]);
    server     second(third, fourth);
    const auto fetched = second.fetch(tokens);
    CHECK(fetched.n_before == 0 && fetched.n_entries == 4 && fetched.tier == 4);
    CHECK(third->got == std::vector<std::string>({names[0], names[1]}));
    CHECK(fourth->got == std::vector<std::string>({names[2], names[3]}));
    CHECK(find(second.store, tokens).n_tokens == 4 * BLOCK);
    // what is found in one is sent to the other
    CHECK(second.store.flush_shared(60));
    CHECK(third->values.size() == 4);

    server        third_server(third, fourth);
    memory_access access;
    access.max_tier     = 3;
    const auto n_probes = fourth->calls("probe");
    CHECK(third_server.fetch(tokens, access).tier == 3 && fourth->calls("probe") == n_probes);
}

CASE(a_tier_that_does_not_work_holds_up_no_other) {
    const auto third = make_place(), fourth = make_place();
    third->fails_reading = (int) tier_failure::unreachable;
    third->fails_writing = (int) tier_failure::unreachable;
    const auto tokens    = some_tokens(1, 3 * BLOCK);
    {
        server first(third, fourth);
        put_all(first.store, tokens);
        wait_until([&] { return fourth->look([](auto & at) { return at.written.size(); }) == 3; });
        CHECK(!first.store.flush_shared(60) && !first.store.flush_shared(60, 3));
        CHECK(first.stats(3).queue_entries == 3 && first.stats(4).queue_entries == 0);
    }
    server second(third, fourth);
    CHECK(second.fetch(tokens).tier == 4);
    CHECK(find(second.store, tokens).n_tokens == 3 * BLOCK);
}

CASE(each_tier_has_its_part_of_the_queue) {
    const auto     third = make_place(), fourth = make_place();
    memory_options with     = server::options_of(third);
    with.shared.queue_bytes = 4 * 100000;
    third->hold_up("probe");
    fourth->hold_up("probe");
    memory_store store(with);
    auto         more = linked(fourth);
    more.queue_bytes  = with.shared.queue_bytes;
    store.add_tier(4, more);
    for (unsigned i = 0; i < 4; i++) {
        store.put(make_entry(entry_kind::block, ROOT, some_tokens(i, BLOCK), 90000), "", {});
    }
    const auto stats = store.stats().linked;
    CHECK(stats.at(0).queue_entries == 2 && stats.at(1).queue_entries == 2);
    CHECK(stats.at(0).drops == 2 && stats.at(1).drops == 2);
    third->resume();
    fourth->resume();
}

CASE(a_tier_that_comes_anew_is_told_all_again) {
    const auto place  = make_place();
    const auto tokens = some_tokens(1, 2 * BLOCK);
    server     one(nullptr, place);
    const auto keys = put_all(one.store, tokens);
    CHECK(one.store.flush_shared(60) && place->calls("put") == 2);
    find(one.store, tokens);
    CHECK(one.store.flush_shared(60) && place->calls("put") == 2);
    place->look([](auto & at) {
        at.values.clear();
        return 0;
    });
    one.store.add_tier(4, linked(place));
    find(one.store, tokens);
    CHECK(one.store.flush_shared(60) && place->calls("put") == 4);

    // one that goes gets nothing any more
    one.store.remove_tier(4);
    CHECK(one.store.linked_tiers().empty() && one.store.stats().linked.empty() && !one.store.has_linked_tier());
    put_all(one.store, some_tokens(2, BLOCK));
    CHECK(!one.store.flush_shared(60) && place->calls("put") == 4);
    CHECK(one.store.fetch(ROOT, some_tokens(3, BLOCK).data(), BLOCK, false, {}).n_entries == 0);
    one.store.remove_tier(4);
    one.store.add_tier(4, linked(place));
    find(one.store, some_tokens(2, BLOCK));
    CHECK(one.store.flush_shared(60) && place->calls("put") == 5);
}

CASE(what_waits_for_a_tier_that_goes_is_dropped) {
    const auto place = make_place();
    server     one(nullptr, place);
    place->hold_up("put");
    const auto tokens = some_tokens(1, 3 * BLOCK);
    put_all(one.store, tokens);
    wait_until([&] { return place->calls("put") == 1; });
    one.store.remove_tier(4);
    place->resume();
    wait_until([&] {
        find(one.store, tokens);
        return place->look([](auto & at) { return at.written.size(); }) == 1;
    });
    one.store.add_tier(4, linked(place));
    wait_until([&] {
        find(one.store, tokens);
        return one.stats(4).queue_entries == 0 && place->look([](auto & at) { return at.values.size(); }) == 3;
    });
}
