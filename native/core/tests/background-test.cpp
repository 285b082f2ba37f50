#include "atlas-background-routes.hpp"
#include "atlas-background.hpp"
#include "atlas-error.hpp"
#include "cases.hpp"

#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <string>

using namespace std::chrono_literals;
using atlas::answer_of_background;
using atlas::background_end;
using atlas::background_limits;
using atlas::background_response;
using atlas::background_responses;
using atlas::http_request;
using atlas::streamed_events;

namespace {

constexpr auto PATIENCE = 30s;

background_responses::shared made(const std::string & id, bool is_streamed = false, size_t bytes = 1) {
    auto response         = std::make_shared<background_response>();
    response->tenant      = "ada";
    response->id          = id;
    response->is_streamed = is_streamed;
    response->bytes       = bytes;
    response->queued      = "queued";
    response->in_progress = "in_progress";
    return response;
}

bool is_refused(background_responses & by, const background_responses::shared & response) {
    try {
        by.accept(response);
        return false;
    } catch (const atlas::error & error) {
        return error.code == 429 || error.code == 503;
    }
}

// Goes on until it is over, and says how it ended.
background_end until_over(background_response & response) {
    cases::wait_until([&] { return response.is_over(); });
    return response.is_cancelled() ? background_end::cancelled : background_end::failed;
}

http_request asked(const std::string & method, const std::string & path, const std::string & query = "") {
    http_request request;
    request.method = method;
    request.path   = "/v1/responses/" + path;
    request.query  = query;
    request.tenant = "ada";
    return request;
}

std::string all_of(const atlas::http_response & answer) {
    std::string text;
    while (answer.next(text)) {
    }
    return text;
}

} // namespace

CASE(responses_wait_for_their_turn) {
    background_responses all([] { return background_limits{1, 1}; });
    const auto           first = made("first"), second = made("second");
    all.accept(first);
    all.begin(first, until_over);
    all.accept(second);
    all.begin(second, until_over);
    CHECK(is_refused(all, made("third")));
    CHECK(all.stats().running == 1 && all.stats().waiting == 1 && all.stats().refused == 1);
    CHECK(second->shown() == "queued");

    CHECK(all.cancel(first, PATIENCE)); // and the second's turn comes
    CHECK(!all.find("ada", "first"));
    cases::wait_until([&] { return second->shown() != "queued"; });
    CHECK(second->shown() == "in_progress");
    CHECK(all.cancel(second, PATIENCE));
    CHECK(all.stats().ended[static_cast<size_t>(background_end::cancelled)] == 2);
    CHECK(all.close(PATIENCE));
}

CASE(limits_change_while_responses_wait) {
    std::atomic<int64_t> most{1};
    background_responses all([&] { return background_limits{most, 1}; });
    const auto           first = made("first"), second = made("second");
    for (const auto & each : {first, second}) {
        all.accept(each);
        all.begin(each, until_over);
    }
    most = 2;
    all.look();
    cases::wait_until([&] { return second->shown() == "in_progress"; });
    CHECK(all.stats().running == 2);
}

CASE(a_place_that_was_not_taken_is_free) {
    background_responses all([] { return background_limits{1, 0}; });
    const auto           first = made("first");
    all.accept(first);
    CHECK(is_refused(all, made("second")));
    all.withdraw(first);
    all.accept(made("third"));
}

CASE(requests_that_wait_have_a_budget) {
    background_responses all([] { return background_limits{1, 1000}; });
    const auto           first = made("first");
    all.accept(first);
    all.begin(first, until_over);
    all.accept(made("large", false, atlas::MAX_BACKGROUND_WAITING));
    CHECK(is_refused(all, made("one more")));
    CHECK(all.close(PATIENCE));
}

CASE(one_that_waits_is_cancelled_without_being_made) {
    background_responses all([] { return background_limits{1, 1}; });
    const auto           first = made("first"), second = made("second");
    all.accept(first);
    all.begin(first, until_over);
    all.accept(second);
    bool was_over = false;
    all.begin(second, [&](background_response & response) {
        was_over = response.is_over();
        return background_end::cancelled;
    });
    CHECK(all.cancel(second, PATIENCE));
    CHECK(was_over);
    CHECK(all.stats().waiting == 0);
    CHECK(all.close(PATIENCE));
}

CASE(an_answer_that_is_being_kept_is_not_cancelled) {
    background_responses all([] { return background_limits{1, 1}; });
    const auto           response = made("one");
    std::promise<void>   claimed, cancelled;
    all.accept(response);
    all.begin(response, [&](background_response & of) {
        CHECK(of.claim());
        claimed.set_value();
        cancelled.get_future().wait();
        return background_end::completed;
    });
    claimed.get_future().wait();
    CHECK(!all.cancel(response, 1ms));
    CHECK(!response->is_over());
    cancelled.set_value();
    CHECK(all.cancel(response, PATIENCE));
    CHECK(all.stats().ended[static_cast<size_t>(background_end::completed)] == 1);
}

CASE(the_end_of_the_server_ends_all) {
    background_responses all([] { return background_limits{1, 10}; });
    for (const char * id : {"a", "b", "c"}) {
        const auto response = made(id);
        all.accept(response);
        all.begin(response, until_over);
    }
    CHECK(all.close(PATIENCE));
    CHECK(all.stats().ended[static_cast<size_t>(background_end::failed)] == 3);
    CHECK(is_refused(all, made("late")));
}

CASE(events_are_read_from_anywhere) {
    streamed_events events;
    for (const char * text : {"a", "b", "c"}) {
        events.add(text);
    }
    const auto  soon = streamed_events::clock::now() + PATIENCE;
    std::string text;
    int64_t     next = 1;
    CHECK(events.read(next, text, soon) == streamed_events::reading::more);
    CHECK(text == "bc" && next == 3);

    auto late = std::async(std::launch::async, [&] {
        std::string rest;
        const auto  how = events.read(next, rest, streamed_events::clock::now() + PATIENCE);
        return rest + (how == streamed_events::reading::more ? "+" : "");
    });
    events.add("d");
    CHECK(late.get() == "d+");
    events.end();
    CHECK(events.read(next, text, soon) == streamed_events::reading::end);
    next = 100;
    CHECK(events.read(next, text, soon) == streamed_events::reading::end);

    CHECK(events.drop(2) == 2);
    next = 1;
    CHECK(events.read(next, text, soon) == streamed_events::reading::lost);
    CHECK(events.first_kept() == 2 && events.next_number() == 4 && events.bytes() == 2);
}

CASE(events_have_a_budget) {
    background_responses all([] { return background_limits{2, 2}; });
    const std::string    half(atlas::MAX_BACKGROUND_EVENTS / 2, 'x');
    const auto           first = made("first", true), second = made("second", true);
    all.accept(first);
    all.begin(first, [&](background_response & of) {
        all.add_event(of, half);
        return background_end::completed;
    });
    CHECK(all.cancel(first, PATIENCE)); // it has ended
    CHECK(all.find("ada", "first"));
    all.accept(second);
    all.begin(second, until_over);
    all.add_event(*second, half);
    CHECK(all.find("ada", "first"));
    all.add_event(*second, "more"); // what has ended goes first
    CHECK(!all.find("ada", "first"));
    all.add_event(*second, half);
    CHECK(second->events.first_kept() == 1);
    CHECK(all.stats().event_bytes <= atlas::MAX_BACKGROUND_EVENTS);

    const auto answer = answer_of_background(all, asked("GET", "second", "stream=true&starting_after=-1"));
    CHECK(answer && answer->status == 400 && answer->body.find("starting_after") != std::string::npos);
    CHECK(all.close(PATIENCE));
}

CASE(what_clients_ask_of_it) {
    background_responses all([] { return background_limits{1, 1}; });
    const auto           response = made("one", true);
    all.accept(response);
    all.add_event(*response, "a");
    all.add_event(*response, "b");
    all.begin(response, [&](background_response & of) {
        const auto how = until_over(of);
        all.add_event(of, "end");
        return how;
    });
    cases::wait_until([&] { return response->shown() != "queued"; });
    CHECK(answer_of_background(all, asked("GET", "one"))->body == "in_progress");
    CHECK(!answer_of_background(all, asked("GET", "other")));
    CHECK(!answer_of_background(all, asked("GET", "one/input_items")));
    CHECK(answer_of_background(all, asked("POST", "compact"))->status == 400);
    for (const char * query : {"stream=yes", "stream=true&starting_after=x", "stream=true&starting_after=-2",
                               "stream=true&starting_after=9223372036854775807"}) {
        CHECK(answer_of_background(all, asked("GET", "one", query))->status == 400);
    }
    auto others   = asked("POST", "one/cancel");
    others.tenant = "ben";
    CHECK(!answer_of_background(all, others));
    CHECK(!response->is_over());

    const auto stream = answer_of_background(all, asked("GET", "one", "starting_after=0&stream=true"));
    CHECK(!answer_of_background(all, asked("POST", "one/cancel"))); // it is cancelled; Python shows it
    CHECK(response->is_cancelled());
    CHECK(all_of(*stream) == "bend");
    CHECK(!answer_of_background(all, asked("GET", "one")));
    CHECK(all_of(*answer_of_background(all, asked("GET", "one", "stream=true"))) == "abend");
    CHECK(!answer_of_background(all, asked("DELETE", "one")));
    CHECK(!answer_of_background(all, asked("GET", "one", "stream=true")));
}

CASE(what_could_not_be_kept_is_shown_as_long_as_it_can) {
    background_responses all([] { return background_limits{1, 1}; });
    const auto           response = made("one");
    all.accept(response);
    all.begin(response, [](background_response & of) {
        of.hold("failed");
        return background_end::failed;
    });
    CHECK(all.cancel(response, PATIENCE));
    CHECK(answer_of_background(all, asked("GET", "one"))->body == "failed");
    CHECK(answer_of_background(all, asked("POST", "one/cancel"))->body == "failed");
}
