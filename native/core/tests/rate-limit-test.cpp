#include "atlas-rate-limit.hpp"
#include "cases.hpp"

#include <atomic>
#include <cmath>
#include <vector>

using atlas::rate_limiter;
using atlas::rate_limits;

static rate_limiter::clock::time_point at(double seconds) {
    return rate_limiter::clock::time_point(
        std::chrono::duration_cast<rate_limiter::clock::duration>(std::chrono::duration<double>(seconds)));
}

static bool is_near(double value, double expected) { return std::abs(value - expected) < 1e-5; }

CASE(rate_requests_come_as_fast_as_allowed) {
    rate_limiter      limiter;
    const rate_limits limits = {4, 0};
    for (int i = 0; i < 4; i++) {
        CHECK(limiter.try_request("a", limits, at(10)) == 0);
    }
    CHECK(is_near(limiter.try_request("a", limits, at(10)), 0.25));
    CHECK(limiter.try_request("b", limits, at(10)) == 0);
    CHECK(is_near(limiter.try_request("a", limits, at(10.2)), 0.05)); // a refused one took nothing
    CHECK(limiter.try_request("a", limits, at(10.25)) == 0);
    CHECK(limiter.try_request("a", limits, at(10.25)) > 0);
    int allowed = 0;
    for (int i = 1; i <= 1000; i++) {
        allowed += limiter.try_request("a", limits, at(10.25 + i / 100.0)) == 0;
    }
    CHECK(allowed == 40);
}

CASE(rate_may_be_below_one_a_second) {
    rate_limiter      limiter;
    const rate_limits limits = {0.1, 0};
    CHECK(limiter.try_request("a", limits, at(0)) == 0);
    CHECK(is_near(limiter.try_request("a", limits, at(4)), 6));
    CHECK(limiter.try_request("a", limits, at(10)) == 0);
}

CASE(rate_tokens_are_charged_afterwards) {
    rate_limiter      limiter;
    const rate_limits limits = {0, 600};
    CHECK(limiter.try_request("a", limits, at(0)) == 0);
    limiter.charge("a", 600, limits, at(0));
    CHECK(limiter.try_request("a", limits, at(0)) == 0); // all is used, but not more
    limiter.charge("a", 300, limits, at(0));
    CHECK(is_near(limiter.try_request("a", limits, at(0)), 30));
    CHECK(is_near(limiter.try_request("a", limits, at(20)), 10));
    CHECK(limiter.try_request("a", limits, at(30)) == 0);
    CHECK(limiter.try_request("b", limits, at(0)) == 0);
}

CASE(rate_both_limits_hold) {
    rate_limiter      limiter;
    const rate_limits limits = {1, 60};
    limiter.charge("a", 70, limits, at(0));
    CHECK(is_near(limiter.try_request("a", limits, at(0)), 10));
    CHECK(limiter.try_request("a", limits, at(10)) == 0);
    CHECK(is_near(limiter.try_request("a", limits, at(10)), 1));
}

CASE(rate_limits_may_change) {
    rate_limiter limiter;
    limiter.charge("a", 1200, {0, 60}, at(0));
    CHECK(is_near(limiter.try_request("a", {0, 60}, at(0)), 1140));
    CHECK(is_near(limiter.try_request("a", {0, 600}, at(0)), 60));
    CHECK(limiter.try_request("a", {0, 0}, at(0)) == 0);
    CHECK(limiter.try_request("a", {1, 0}, at(0)) == 0); // what was used without a limit counts no longer
    CHECK(limiter.try_request("a", {1, 600}, at(1)) == 0);
}

CASE(rate_off_remembers_nothing) {
    rate_limiter limiter;
    for (int i = 0; i < 100; i++) {
        CHECK(limiter.try_request("a", {}, at(0)) == 0);
        limiter.charge("a", 1e9, {}, at(0));
    }
    CHECK(limiter.size() == 0);
}

CASE(rate_clock_of_another_thread_may_be_behind) {
    rate_limiter      limiter;
    const rate_limits limits = {1, 0};
    CHECK(limiter.try_request("a", limits, at(5)) == 0);
    CHECK(is_near(limiter.try_request("a", limits, at(4.9)), 1));
    CHECK(limiter.try_request("a", limits, at(6)) == 0);
}

CASE(rate_forgets_who_used_nothing_lately) {
    rate_limiter      limiter;
    const rate_limits limits = {1, 0};
    for (int i = 0; i < 1000; i++) {
        CHECK(limiter.try_request(std::to_string(i), limits, at(0)) == 0);
    }
    CHECK(limiter.size() == 1000);
    for (int i = 0; i < 1000; i++) {
        CHECK(limiter.try_request("a", limits, at(2 + 2 * i)) == 0);
    }
    CHECK(limiter.size() == 1);
}

CASE(rate_remembers_so_many_names_only) {
    rate_limiter      limiter;
    const rate_limits limits = {0.001, 0};
    const int         n      = 65536;
    for (int i = 0; i < n; i++) {
        CHECK(limiter.try_request(std::to_string(i), limits, at(0)) == 0);
    }
    CHECK(limiter.try_request("0", limits, at(0)) > 0); // now "1" was used longest ago
    CHECK(limiter.size() == n);
    CHECK(limiter.try_request("new", limits, at(0)) == 0);
    CHECK(limiter.size() == n);
    CHECK(limiter.try_request("0", limits, at(0)) > 0);
    CHECK(limiter.try_request("1", limits, at(0)) == 0);
}

CASE(rate_threads_get_no_more_than_allowed) {
    rate_limiter             limiter;
    std::atomic<int>         allowed{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 8; t++) {
        threads.emplace_back([&] {
            for (int i = 0; i < 1000; i++) {
                allowed += limiter.try_request(std::to_string(i % 10), {50, 0}, at(1)) == 0;
                limiter.charge(std::to_string(i), 1, {50, 1}, at(1));
            }
        });
    }
    for (auto & thread : threads) {
        thread.join();
    }
    CHECK(allowed == 10 * 50);
}
