#include "atlas-hooked-request.hpp"
#include "hook-test.hpp"

using namespace hook_test;

CASE(the_end_of_a_request_is_told_and_nobody_waits) {
    hook_calls                calls;
    std::promise<std::string> told;
    set_table(calls, {{"a", LONG}}, hook::finished);
    atlas::hooked_request request(calls);
    request.end(hook::finished, "record"); // before there is any worker
    workers pool(calls, [&](size_t, const std::string & body) -> verdict {
        told.set_value(body);
        return {hook_step::pass, {}};
    });
    CHECK(told.get_future().get() == "record");
    CHECK(calls.drain(60));
}

CASE(an_end_that_no_plugin_hears_is_told_only_where_plugins_may_keep_something) {
    for (const hook what : {hook::request, hook::stream_chunk}) {
        hook_calls calls; // without workers
        set_table(calls, {{"a", SHORT}}, what);
        atlas::hooked_request request(calls);
        request.ask(what, "x");
        request.end(hook::finished, "record");
        CHECK(calls.drain(0) == (what == hook::request));
    }
}

CASE(ends_that_too_many_wait_for_are_dropped_and_counted) {
    hook_calls calls;
    set_table(calls, {{"a", LONG}}, hook::finished);
    for (size_t i = 0; i < hook_calls::MAX_TOLD + 5; i++) {
        atlas::hooked_request(calls).end(hook::finished, "record");
    }
    CHECK(calls.dropped() == 5);
    CHECK(!calls.drain(0));
}

CASE(draining_does_not_wait_for_one_that_comes_over_its_deadline) {
    hook_calls         calls;
    gate               hanging;
    std::promise<void> is_inside;
    set_table(calls, {{"a", SHORT}}, hook::finished);
    workers pool(calls, [&](size_t, const std::string &) -> verdict {
        is_inside.set_value();
        hanging.wait();
        return {hook_step::pass, {}};
    });
    atlas::hooked_request(calls).end(hook::finished, "record");
    is_inside.get_future().wait();
    auto draining = std::async(std::launch::async, [&] { return calls.drain(3600); });
    CHECK(draining.wait_for(LONG) == std::future_status::ready);
    hanging.open();
    CHECK(draining.get());
}

CASE(a_worker_that_hangs_in_what_nobody_waits_for_is_replaced) {
    hook_calls       calls;
    gate             hanging;
    std::atomic<int> told{0};
    calls.set_limits({1000, 1});
    set_table(calls, {{"a", SHORT}}, hook::finished);
    workers pool(calls, [&](size_t, const std::string & body) -> verdict {
        if (body == "hang") {
            hanging.wait();
        }
        told++;
        return {hook_step::pass, {}};
    });
    for (const char * record : {"hang", "one", "two"}) {
        atlas::hooked_request(calls).end(hook::finished, record);
    }
    CHECK(calls.drain(60));
    CHECK(told == 2);
    CHECK(pool.made == 2);
    hanging.open();
}

CASE(one_that_hangs_though_nobody_waits_for_it_costs_no_time) {
    hook_calls         calls;
    gate               hanging;
    std::promise<void> hangs, was_told;
    set_table(calls, {{"a", SHORT}}, hook::finished);
    workers pool(calls, [&](size_t, const std::string & body) -> verdict {
        if (body == "hang") {
            hangs.set_value();
            hanging.wait();
        } else {
            was_told.set_value();
        }
        return {hook_step::pass, {}};
    });
    calls.set_limits({1, 1});
    atlas::hooked_request(calls).end(hook::finished, "hang");
    hangs.get_future().wait();
    atlas::hooked_request(calls).end(hook::finished, "record"); // has another worker made, once the first is overdue
    was_told.get_future().wait();
    const auto before = pool.maker_time(), mine = cpu_time_of(pthread_self());
    while (cpu_time_of(pthread_self()) - mine < 100ms) { // a thread that spins gets as much
    }
    CHECK(pool.maker_time() - before < 20ms);
    hanging.open();
}
