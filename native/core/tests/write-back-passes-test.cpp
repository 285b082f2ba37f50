#include "atlas-write-back-passes.hpp"
#include "cases.hpp"

#include <future>

using atlas::write_back_passes;

// The flush of another thread, which the loop's passes have not answered yet.
static std::future<bool> begin_flush(write_back_passes & loop, bool is_urgent) {
    const auto before = loop.begin_pass();
    auto       flush  = std::async(std::launch::async, [&loop, is_urgent] { return loop.wait(60, is_urgent); });
    cases::wait_until([&] { return loop.begin_pass() != before && loop.is_urgent() == is_urgent; });
    return flush;
}

static bool is_answered(std::future<bool> & flush) {
    return flush.wait_for(std::chrono::milliseconds(20)) == std::future_status::ready;
}

CASE(write_back_that_is_not_urgent_waits_for_a_complete_pass) {
    write_back_passes loop;
    loop.end_pass(loop.begin_pass(), true, false); // slots work on tasks
    const auto earlier = loop.begin_pass();
    auto       flush   = begin_flush(loop, false);
    loop.end_pass(earlier, true, false);
    CHECK(!is_answered(flush)); // the pass began before
    loop.end_pass(loop.begin_pass(), false, false);
    CHECK(!is_answered(flush)); // something is left
    loop.end_pass(loop.begin_pass(), true, false);
    CHECK(flush.get());
}

CASE(write_back_that_is_urgent_is_asked_for_until_it_is_answered) {
    write_back_passes loop;
    loop.end_pass(loop.begin_pass(), true, false);
    CHECK(!loop.is_urgent());
    auto patient = begin_flush(loop, false);
    auto urgent  = begin_flush(loop, true);
    CHECK(loop.is_urgent());
    loop.end_pass(loop.begin_pass(), true, false);
    CHECK(urgent.get());
    CHECK(patient.get());
    CHECK(!loop.is_urgent());
}

CASE(write_back_has_nothing_to_wait_for_while_all_is_idle) {
    write_back_passes loop;
    CHECK(loop.wait(60, false));
    CHECK(loop.wait(60, true));
    loop.on_launch();
    CHECK(!loop.wait(0.01, true));
}

CASE(write_back_that_was_called_away_from_idle_slots_is_not_over) {
    write_back_passes loop;
    CHECK(!loop.is_called_away());
    loop.on_arrival();
    CHECK(loop.is_called_away());
    loop.end_pass(loop.begin_pass(), false, true);
    CHECK(!loop.wait(0.01, false));
    loop.on_launch();
    CHECK(!loop.is_called_away());
    loop.end_pass(loop.begin_pass(), true, true);
    CHECK(loop.wait(60, false));
}
