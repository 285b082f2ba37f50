#include "atlas-own-routes.hpp"
#include "cases.hpp"

#include <atomic>
#include <chrono>
#include <future>
#include <stdexcept>
#include <thread>

using atlas::http_request;
using atlas::http_response;
using atlas::own_routes;

static own_routes::clock::time_point in(int ms) { return own_routes::clock::now() + std::chrono::milliseconds(ms); }

static const auto IN_A_MINUTE = 60000;

static http_response of_body(const std::string & body) {
    http_response answer;
    answer.body = body;
    return answer;
}

CASE(a_plugins_call_is_answered) {
    own_routes routes;
    CHECK(routes.call({}, in(IN_A_MINUTE), 1).status == 503); // there is no model yet
    routes.open([](const http_request & request, const std::function<bool()> & is_gone) {
        return is_gone() ? http_response() : of_body(request.path);
    });
    http_request request;
    request.path = "/tokenize";
    CHECK(routes.call(request, in(IN_A_MINUTE), 1).body == "/tokenize");
    routes.close();
    CHECK(routes.call(request, in(IN_A_MINUTE), 1).status == 503);
}

CASE(what_goes_wrong_in_a_plugins_call_is_an_answer) {
    own_routes routes;
    routes.open([](const http_request & request, const std::function<bool()> &) -> http_response {
        if (request.path == "/stream") {
            http_response answer;
            answer.next = [](std::string &) { return false; };
            return answer;
        }
        throw std::runtime_error("broken");
    });
    http_request request;
    CHECK(routes.call(request, in(IN_A_MINUTE), 1).status == 500);
    request.path = "/stream";
    CHECK(routes.call(request, in(IN_A_MINUTE), 1).status == 400);
    CHECK(routes.call(request, in(IN_A_MINUTE), 1).status == 400); // the one before has left
}

CASE(plugins_calls_wait_for_their_turn) {
    own_routes         routes;
    std::promise<void> entered, release;
    auto               released = release.get_future().share();
    routes.open([&](const http_request & request, const std::function<bool()> & is_gone) {
        if (request.path == "/slow") {
            entered.set_value();
            released.wait();
        }
        return is_gone() ? http_response() : of_body("done");
    });
    http_request slow;
    slow.path = "/slow";
    std::thread other([&] { CHECK(routes.call(slow, in(IN_A_MINUTE), 1).body == "done"); });
    entered.get_future().wait();
    CHECK(routes.call({}, in(1), 1).status == 503);
    CHECK(routes.call({}, in(IN_A_MINUTE), 2).body == "done"); // the limit was raised
    auto waiting = std::async(std::launch::async, [&] { return routes.call({}, in(IN_A_MINUTE), 1); });
    release.set_value();
    CHECK(waiting.get().body == "done");
    other.join();
}

CASE(a_plugins_call_is_given_up_at_its_deadline) {
    own_routes routes;
    routes.open([](const http_request &, const std::function<bool()> & is_gone) {
        while (!is_gone()) {
            std::this_thread::yield();
        }
        return http_response(); // as upstream's handlers
    });
    CHECK(routes.call({}, in(20), 1).status == 503);
}

CASE(the_end_waits_for_plugins_calls) {
    own_routes         routes;
    std::promise<void> entered;
    std::atomic<bool>  has_left{false}, may_leave{false};
    routes.open([&](const http_request &, const std::function<bool()> &) {
        entered.set_value();
        while (!may_leave) {
            std::this_thread::yield();
        }
        has_left = true;
        return of_body("done");
    });
    std::thread other([&] { routes.call({}, in(IN_A_MINUTE), 1); });
    entered.get_future().wait();
    auto waiting = std::async(std::launch::async, [&] { return routes.call({}, in(IN_A_MINUTE), 1).status; });
    auto ending  = std::async(std::launch::async, [&] {
        routes.close();
        return has_left.load();
    });
    CHECK(waiting.get() == 503); // nobody else begins
    may_leave = true;
    CHECK(ending.get());
    other.join();
}

CASE(what_plugins_ask_is_checked) {
    const std::string good =
        R"({"method":"POST","path":"/a?b=c","body":"{}","tenant":"t","is_admin":false,"timeout_ms":1})";
    const auto asked = atlas::parse_asked_route(good);
    CHECK(asked.has_value());
    CHECK(asked->request.path == "/a");
    CHECK(asked->request.query == "b=c");
    CHECK(asked->request.tenant == "t");
    CHECK(!asked->request.is_admin);
    for (const char * bad : {"", "{}", "[]", R"({"method":1})"}) {
        CHECK(!atlas::parse_asked_route(bad));
    }
    for (const char * timeout : {"0", "-1", "86400001"}) {
        std::string wrong = good;
        wrong.replace(wrong.rfind('1'), 1, timeout);
        CHECK(!atlas::parse_asked_route(wrong));
    }
    CHECK(atlas::asked_answer_json(of_body("\xff")) == "{\"body\":\"\xef\xbf\xbd\",\"status\":200}");
}
