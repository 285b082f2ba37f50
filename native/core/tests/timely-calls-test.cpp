#include "atlas-timely-calls.hpp"
#include "cases.hpp"

#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <thread>
#include <vector>

using namespace std::chrono_literals;
using atlas::http_response;
using atlas::timely_calls;

constexpr auto LONG = 60000ms; // never waited for

static http_response saying(const std::string & text) {
    http_response response;
    response.body = text;
    return response;
}

CASE(timely_calls_return_what_was_returned) {
    timely_calls calls;
    CHECK(calls.run([] { return saying("one"); }, LONG)->body == "one");
    CHECK(calls.run([] { return saying("two"); }, LONG)->body == "two");
}

CASE(timely_calls_that_throw_return_nothing) {
    timely_calls calls;
    CHECK(!calls.run([]() -> http_response { throw std::bad_alloc(); }, LONG));
    CHECK(calls.run([] { return saying("next"); }, LONG)->body == "next");
}

CASE(timely_calls_leave_one_that_is_late) {
    timely_calls       calls;
    std::promise<void> release;
    std::atomic<int>   n_others{0};

    const auto released = release.get_future().share();
    CHECK(!calls.run(
        [released] {
            released.wait();
            return saying("late");
        },
        1ms));
    for (int i = 0; i < 3; i++) {
        const auto other = calls.run(
            [&n_others] {
                n_others++;
                return saying("other");
            },
            LONG); // at once all the same
        CHECK(!other && n_others == 0);
    }
    release.set_value();
    std::optional<http_response> after;
    while (!after) {
        after = calls.run([] { return saying("after"); }, LONG);
    }
    CHECK(after->body == "after");
}

CASE(timely_calls_take_turns) {
    timely_calls             calls;
    std::atomic<int>         n_inside{0};
    std::vector<std::thread> threads;
    std::atomic<int>         n_answers{0};
    for (int i = 0; i < 8; i++) {
        threads.emplace_back([&] {
            const auto found = calls.run(
                [&n_inside] {
                    const bool is_alone = n_inside++ == 0;
                    std::this_thread::yield();
                    n_inside--;
                    return saying(is_alone ? "alone" : "with others");
                },
                LONG);
            n_answers += found && found->body == "alone";
        });
    }
    for (auto & thread : threads) {
        thread.join();
    }
    CHECK(n_answers == 8);
}

CASE(timely_calls_outlive_who_asked) {
    std::promise<void> release;
    const auto         gone     = std::make_shared<std::promise<void>>();
    const auto         released = release.get_future().share();
    {
        timely_calls calls;
        CHECK(!calls.run(
            [released, gone] {
                released.wait();
                http_response response;
                // goes with the answer that nobody takes
                response.next = [held = std::shared_ptr<void>(nullptr, [gone](void *) { gone->set_value(); })](
                                    std::string &) { return false; };
                return response;
            },
            1ms));
    }
    release.set_value();
    gone->get_future().wait();
}
