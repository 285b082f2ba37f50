#include "atlas-hooked-request.hpp"
#include "hook-test.hpp"

using namespace hook_test;

CASE(nothing_is_asked_without_a_plugin) {
    hook_calls calls;
    CHECK(!calls.has_any());
    CHECK(!ask(calls).changed); // nobody is there who could answer
    set_table(calls, {{"a", LONG}});
    CHECK(calls.has(hook::request) && !calls.has(hook::response));
    set_table(calls, {});
    CHECK(!calls.has_any());
}

CASE(what_one_changes_the_next_one_gets) {
    hook_calls calls;
    set_table(calls, {{"a", LONG}, {"b", LONG}, {"c", LONG}});
    workers pool(calls, [](size_t at, const std::string & body) -> verdict {
        return at == 1 ? verdict{hook_step::pass, {}} : verdict{hook_step::modify, saying(body + std::to_string(at))};
    });
    CHECK(*ask(calls).changed == "x02");
    CHECK(pool.made == 1); // one call for all three
}

CASE(a_refusal_and_an_answer_end_the_asking) {
    hook_calls       calls;
    std::atomic<int> asked{0};
    set_table(calls, {{"a", LONG}, {"b", LONG}});
    workers pool(calls, [&](size_t at, const std::string & body) -> verdict {
        asked += at == 1 ? 1 : 0;
        return body == "no" ? verdict{hook_step::reject, saying("not you", 451)}
                            : verdict{hook_step::respond, saying("mine")};
    });
    CHECK(ask(calls).answer->body == "mine");
    try {
        ask(calls, "no");
        CHECK(false);
    } catch (const atlas::error & error) {
        CHECK(error.code == 451);
        CHECK(error.what() == std::string("not you"));
    }
    CHECK(asked == 0);
}

CASE(one_that_fails_is_passed_over_or_refuses) {
    hook_calls    calls;
    const verdict failed = {hook_step::fail, {}};
    set_table(calls, {{"open", LONG}, {"next", LONG}});
    workers pool(calls, [&](size_t at, const std::string &) -> verdict {
        return at == 0 ? failed : verdict{hook_step::modify, saying("next")};
    });
    CHECK(*ask(calls).changed == "next");
    set_table(calls, {{"closed", LONG, true}, {"next", LONG}});
    CHECK(refused_with(calls) == 503);
}

CASE(one_that_hangs_is_left_at_its_deadline_and_the_next_is_asked) {
    hook_calls calls;
    gate       hanging;
    set_table(calls, {{"first", LONG}, {"hangs", SHORT}, {"last", LONG}});
    workers pool(calls, [&](size_t at, const std::string & body) -> verdict {
        if (at == 1) {
            hanging.wait();
        }
        return {hook_step::modify, saying(body + std::to_string(at))};
    });
    CHECK(*ask(calls).changed == "x02"); // what the first changed is not lost
    CHECK(tally_of(calls, "hangs").timeouts == 1);
    CHECK(tally_of(calls, "first").timeouts == 0);
    CHECK(tally_of(calls, "hangs").late == 0);
    hanging.open();
    while (tally_of(calls, "hangs").late == 0) { // its answer is dropped, and counted
        std::this_thread::yield();
    }
    set_table(calls, {{"hangs", SHORT, true}});
}

CASE(one_that_hangs_and_fails_closed_refuses) {
    hook_calls calls;
    gate       hanging;
    set_table(calls, {{"hangs", SHORT, true}});
    workers pool(calls, [&](size_t, const std::string &) -> verdict {
        hanging.wait();
        return {hook_step::pass, {}};
    });
    CHECK(refused_with(calls) == 503);
    hanging.open();
}

CASE(a_hook_is_off_after_deadlines_missed_in_a_row_until_it_is_turned_on) {
    hook_calls        calls;
    gate              hanging;
    std::atomic<bool> hangs{true};
    calls.set_limits({3, 16});
    set_table(calls, {{"hangs", SHORT}});
    workers pool(calls, [&](size_t, const std::string &) -> verdict {
        if (hangs) {
            hanging.wait();
        }
        return {hook_step::modify, saying("back")};
    });
    while (!tally_of(calls, "hangs").is_off) { // on a busy machine some are not begun in time
        CHECK(tally_of(calls, "hangs").timeouts < 3);
        CHECK(!ask(calls).changed);
    }
    CHECK(tally_of(calls, "hangs").timeouts == 3);
    hangs = false;
    CHECK(!ask(calls).changed); // not asked
    CHECK(!calls.turn_on("another"));
    CHECK(calls.turn_on("hangs"));
    atlas::hook_outcome back;
    while (!back.changed) {
        back = ask(calls);
    }
    CHECK(*back.changed == "back");
    CHECK(!calls.turn_on("hangs"));
    hanging.open();
}

CASE(one_that_is_off_and_fails_closed_refuses_without_being_asked) {
    hook_calls calls;
    gate       hanging;
    calls.set_limits({1, 16});
    set_table(calls, {{"hangs", SHORT, true}});
    workers pool(calls, [&](size_t, const std::string &) -> verdict {
        hanging.wait();
        return {hook_step::pass, {}};
    });
    while (!tally_of(calls, "hangs").is_off) {
        CHECK(refused_with(calls) == 503);
    }
    CHECK(refused_with(calls) == 503);
    CHECK(tally_of(calls, "hangs").timeouts == 1);
    hanging.open();
}

CASE(deadlines_missed_at_the_same_time_count_as_one_in_a_row) {
    atlas::hook_tally tally;
    const auto        start = atlas::hook_tally::clock::now();
    CHECK(tally.miss(start, start + 10ms) == 1);
    CHECK(tally.miss(start + 5ms, start + 15ms) == 1); // it was under way when the first was counted
    CHECK(tally.miss(start + 10ms, start + 20ms) == 2);
    CHECK(tally.timeouts == 3);
    tally.keep();
    CHECK(tally.miss(start + 20ms, start + 30ms) == 1);
}

CASE(a_call_that_python_does_not_begin_is_no_fault_of_the_plugin) {
    hook_calls calls; // without workers
    set_table(calls, {{"a", SHORT}, {"b", SHORT, true}});
    CHECK(refused_with(calls) == 503);
    CHECK(tally_of(calls, "a").unserved == 1 && tally_of(calls, "a").timeouts == 0);
    CHECK(tally_of(calls, "b").unserved == 1 && tally_of(calls, "b").timeouts == 0);
}

CASE(workers_that_are_held_up_are_replaced) {
    hook_calls       calls;
    gate             hanging;
    std::atomic<int> hung{0};
    calls.set_limits({1000, 2});
    set_table(calls, {{"hangs", SHORT}});
    workers pool(calls, [&](size_t, const std::string & body) -> verdict {
        if (body == "hang") {
            hung++;
            hanging.wait();
        }
        return {hook_step::modify, saying("done")};
    });
    while (hung < 10) {
        CHECK(!ask(calls, "hang").changed);
    }
    CHECK(pool.made >= 10);
    while (!ask(calls).changed) { // a busy machine may need more than the deadline to make one more
    }
    hanging.open();
}

CASE(no_more_workers_than_allowed_are_made) {
    hook_calls       calls;
    gate             hanging;
    std::atomic<int> inside{0};
    calls.set_limits({1000, 3});
    set_table(calls, {{"slow", LONG}});
    workers                        pool(calls, [&](size_t, const std::string &) -> verdict {
        inside++;
        hanging.wait();
        return {hook_step::pass, {}};
    });
    std::vector<std::future<void>> asking;
    for (int i = 0; i < 8; i++) {
        asking.push_back(std::async(std::launch::async, [&] { ask(calls); }));
    }
    while (inside < 3) {
        std::this_thread::yield();
    }
    hanging.open();
    for (auto & each : asking) {
        each.get();
    }
    CHECK(pool.made == 3);
    CHECK(inside == 8);
}

CASE(a_request_goes_on_with_the_plugins_that_there_were_when_it_began) {
    hook_calls calls;
    set_table(calls, {{"a", LONG}});
    workers pool(calls,
                 [](size_t, const std::string & body) -> verdict { return {hook_step::modify, saying(body + "!")}; });
    atlas::hooked_request request(calls);
    set_table(calls, {});
    CHECK(request.has(hook::request));
    CHECK(calls.tables_in_use() == std::vector<uint64_t>({1, 1}));
    CHECK(*request.ask(hook::request, "x").changed == "x!");
    CHECK(!atlas::hooked_request(calls).has(hook::request));
}

CASE(a_body_is_wanted_if_one_plugin_wants_it) {
    hook_calls calls;
    for (const bool is_wanted : {false, true}) {
        atlas::hook_table table;
        auto &            of = table.by_hook[static_cast<size_t>(hook::request)];
        of.resize(2);
        of[0].reads_body = false;
        of[1].reads_body = is_wanted;
        calls.set_table(std::move(table));
        CHECK(atlas::hooked_request(calls).reads_body(hook::request) == is_wanted);
    }
}

CASE(who_is_asked_after_the_end_is_refused) {
    hook_calls calls;
    set_table(calls, {{"a", LONG}});
    calls.close();
    CHECK(refused_with(calls) == 503);
    CHECK(!calls.worker_wanted(false));
}

CASE(pieces_of_a_stream_are_held_until_a_plugin_wants_them) {
    hook_calls        calls;
    atlas::hook_table table;
    auto &            of = table.by_hook[static_cast<size_t>(hook::stream_chunk)];
    of.resize(2);
    of[0].plugin = "a";
    of[1].plugin = "b";
    of[1].batch  = 3;
    calls.set_table(std::move(table));
    atlas::hooked_request request(calls);
    CHECK(request.hold("1", false).empty());
    CHECK(request.hold("", false).empty());
    CHECK(request.hold("2", false).empty());
    CHECK(request.hold("3", true) == "1,2,3");
    CHECK(request.hold("4", true) == "4");
}

CASE(many_threads_ask_at_once_while_plugins_come_and_go) {
    hook_calls calls;
    calls.set_limits({1000, 4});
    set_table(calls, {{"a", LONG}, {"b", LONG}});
    {
        workers                        pool(calls, [](size_t at, const std::string & body) -> verdict {
            return {hook_step::modify, saying(body + std::to_string(at))};
        });
        std::vector<std::future<bool>> asking;
        for (int thread = 0; thread < 8; thread++) {
            asking.push_back(std::async(std::launch::async, [&] {
                bool is_right = true;
                for (int i = 0; i < 200; i++) {
                    atlas::hooked_request request(calls);
                    const std::string     body = std::to_string(i);
                    is_right &= *request.ask(hook::request, body).changed == body + "01" ||
                                *request.ask(hook::request, body).changed == body + "0";
                    request.end(hook::finished, "");
                }
                return is_right;
            }));
        }
        for (int i = 0; i < 50; i++) {
            if (i % 2 == 0) {
                set_table(calls, {{"a", LONG}});
            } else {
                set_table(calls, {{"a", LONG}, {"b", LONG}});
            }
        }
        for (auto & each : asking) {
            CHECK(each.get());
        }
    }
}
