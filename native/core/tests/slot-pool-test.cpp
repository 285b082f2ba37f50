#include "atlas-http.hpp"
#include "atlas-slot-pool.hpp"
#include "cases.hpp"

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

using atlas::slot_pool;
using cases::wait_until;

static atlas::AtlasServerConfig limits(int64_t max_concurrent, double pool_timeout_ms) {
    atlas::AtlasServerConfig config;
    config.max_concurrent_atlas_requests = max_concurrent;
    config.pool_timeout_ms               = pool_timeout_ms;
    return config;
}

static const double   FOREVER_MS = 3600000;
static const auto     PATIENT    = limits(1024, FOREVER_MS);
static const auto     HASTY      = limits(1024, 0);
static constexpr bool SESSION    = true;

static slot_pool::lease enter(slot_pool & pool, int64_t n, const atlas::AtlasServerConfig & config,
                              bool has_session = SESSION) {
    return pool.enter(n, has_session, config, {});
}

// The error that a call throws.
template <typename F> static atlas::error error_of(F call) {
    try {
        call();
    } catch (const atlas::error & e) {
        return e;
    }
    CHECK(!"an error was expected");
    return atlas::error(0, "");
}

static void check_nothing_held(const slot_pool & pool) {
    const auto stats = pool.stats();
    CHECK(stats.in_progress == 0 && stats.waiting == 0 && stats.slots_in_use == 0);
}

// A clock that a test moves.
struct hand_clock {
    std::atomic<int64_t> ms{0};

    std::function<slot_pool::clock::time_point()> function() {
        return [this] { return slot_pool::clock::time_point(std::chrono::milliseconds(ms)); };
    }
};

// A request that waits, in a thread of its own, and tells in which order it was served.
class queued {
  public:
    queued(slot_pool & pool, int64_t n, std::vector<int> & order, int number) {
        const int64_t before = pool.stats().waiting;
        thread               = std::thread([this, &pool, n, &order, number] {
            const auto mine = enter(pool, n, PATIENT);
            order.push_back(number); // the pool lets one go at a time in these tests
            wait_until([this] { return may_end.load(); });
        });
        wait_until([&] { return pool.stats().waiting > before; });
    }
    void end() {
        may_end = true;
        thread.join();
    }

  private:
    std::atomic<bool> may_end{false};
    std::thread       thread;
};

CASE(admission_serves_in_the_order_of_arrival) {
    slot_pool pool;
    pool.set_pool_size(1);
    std::vector<int>                     order;
    std::vector<std::unique_ptr<queued>> requests;
    {
        const auto first = enter(pool, 1, PATIENT);
        for (int i = 0; i < 5; i++) {
            requests.push_back(std::make_unique<queued>(pool, 1, order, i));
        }
        CHECK(pool.stats().in_progress == 6 && pool.stats().waiting == 5);
    }
    for (const auto & request : requests) {
        request->end();
    }
    CHECK(order == std::vector<int>({0, 1, 2, 3, 4}));
    check_nothing_held(pool);
}

CASE(admission_lets_none_pass_a_large_request) {
    slot_pool pool;
    pool.set_pool_size(2);
    std::vector<int>                order;
    std::optional<slot_pool::lease> first  = enter(pool, 1, PATIENT);
    std::optional<slot_pool::lease> second = enter(pool, 1, PATIENT);
    queued                          large(pool, 2, order, 0);
    queued                          small(pool, 1, order, 1);
    first.reset();
    CHECK(pool.stats().waiting == 2 && pool.stats().slots_in_use == 1);
    const auto refused = error_of([&] { enter(pool, 1, HASTY); });
    CHECK(std::string(refused.what()).find(": 1 of 2 are in use, and 1 are needed (waited 0 ms); ") !=
          std::string::npos);
    second.reset();
    large.end();
    small.end();
    CHECK(order == std::vector<int>({0, 1}));
    check_nothing_held(pool);
}

CASE(admission_gives_at_most_the_whole_pool) {
    slot_pool pool;
    pool.set_pool_size(4);
    const auto all = enter(pool, 32, HASTY);
    CHECK(all && !all.degraded() && pool.stats().slots_in_use == 4);
    // one that waits gets the pool as it then is
    std::thread bigger([&] { CHECK(enter(pool, 1, PATIENT)); });
    wait_until([&] { return pool.stats().waiting == 1; });
    pool.set_pool_size(5);
    bigger.join();
    CHECK(pool.stats().slots_in_use == 4);
}

CASE(admission_holds_nobody_up_without_a_pool) {
    slot_pool  pool;
    const auto first  = enter(pool, 1, HASTY);
    const auto second = enter(pool, 8, HASTY);
    CHECK(first && second && !second.degraded() && pool.stats().in_progress == 2);
    pool.set_pool_size(1);
    CHECK(!enter(pool, 1, HASTY).degraded());
}

CASE(admission_refuses_one_too_many) {
    slot_pool pool;
    pool.set_pool_size(4);
    std::optional<slot_pool::lease> first = enter(pool, 1, limits(2, 0)), second = enter(pool, 1, limits(2, 0));
    const auto                      refused = error_of([&] { enter(pool, 1, limits(2, 0)); });
    CHECK(refused.code == 429 && refused.retry_after_s == 1);
    CHECK(std::string(refused.what()) == "Rate limit exceeded: 2 ATLAS requests are in progress, the most allowed by "
                                         "--atlas-max-concurrent or ATLAS_MAX_CONCURRENT");
    CHECK(pool.stats().too_many == 1 && pool.stats().in_progress == 2);
    CHECK(enter(pool, 1, limits(3, 0))); // the limit may change
    first.reset();
    CHECK(enter(pool, 1, limits(2, 0)));
    const auto standard = pool.take(1);
    CHECK(enter(pool, 1, limits(2, 0))); // standard requests count among none of them
}

CASE(admission_counts_those_that_wait) {
    slot_pool pool;
    pool.set_pool_size(1);
    std::vector<int>                order;
    std::optional<slot_pool::lease> first = enter(pool, 1, PATIENT);
    queued                          waiting(pool, 1, order, 0);
    CHECK(error_of([&] { enter(pool, 1, limits(2, FOREVER_MS)); }).code == 429);
    first.reset();
    waiting.end();
}

CASE(admission_refuses_a_session_when_the_time_is_over) {
    hand_clock clock;
    slot_pool  pool(clock.function());
    pool.set_pool_size(2);
    const auto  all = enter(pool, 2, PATIENT);
    std::thread waiting([&] {
        const auto refused = error_of([&] { enter(pool, 1, limits(1024, 30000)); });
        CHECK(refused.code == 503 && refused.retry_after_s == 1);
        CHECK(std::string(refused.what()).find("No available ATLAS contexts: all 2 are in use (waited 30000 ms); ") ==
              0);
    });
    wait_until([&] { return pool.stats().waiting == 1; });
    clock.ms = 29999;
    CHECK(pool.stats().exhausted == 0);
    clock.ms = 30000;
    waiting.join();
    CHECK(pool.stats().exhausted == 1 && pool.stats().in_progress == 1);
}

CASE(admission_degrades_what_has_no_session) {
    slot_pool pool;
    pool.set_pool_size(1);
    {
        const auto first  = enter(pool, 1, HASTY);
        const auto second = enter(pool, 3, limits(1024, 1), !SESSION);
        CHECK(!first.degraded() && second && second.degraded());
        CHECK(pool.stats().slots_in_use == 2 && pool.stats().in_progress == 2 && pool.stats().degraded == 1);
        CHECK(error_of([&] { enter(pool, 1, HASTY); }).code == 503);
    }
    check_nothing_held(pool);
}

CASE(admission_goes_on_behind_one_that_gave_up) {
    hand_clock clock;
    slot_pool  pool(clock.function());
    pool.set_pool_size(2);
    std::vector<int> order;
    const auto       first = enter(pool, 1, PATIENT);
    std::thread      large([&] { CHECK(error_of([&] { enter(pool, 2, limits(1024, 10)); }).code == 503); });
    wait_until([&] { return pool.stats().waiting == 1; });
    queued small(pool, 1, order, 0);
    clock.ms = 10;
    large.join();
    small.end();
    CHECK(pool.stats().in_progress == 1);
}

CASE(admission_frees_the_place_of_a_client_that_left) {
    slot_pool pool;
    pool.set_pool_size(2);
    std::vector<int>  order;
    std::atomic<bool> gone{false};
    const auto        first = enter(pool, 1, PATIENT);
    std::thread       leaver([&] {
        const auto mine = pool.enter(2, SESSION, PATIENT, [&] {
            CHECK(pool.stats().in_progress >= 2); // asked without the lock
            return gone.load();
        });
        CHECK(!mine && !mine.degraded());
    });
    wait_until([&] { return pool.stats().waiting == 1; });
    queued behind(pool, 1, order, 0);
    gone = true;
    leaver.join();
    behind.end();
    CHECK(pool.stats().in_progress == 1 && pool.stats().slots_in_use == 1 && pool.stats().exhausted == 0);
}

CASE(admission_takes_back_what_a_client_that_left_was_given_meanwhile) {
    slot_pool pool;
    pool.set_pool_size(1);
    std::optional<slot_pool::lease> first = enter(pool, 1, PATIENT);
    CHECK(!pool.enter(1, SESSION, PATIENT, [&] {
        first.reset();
        return true;
    }));
    check_nothing_held(pool);
}

CASE(admission_never_holds_up_standard_requests) {
    slot_pool pool;
    pool.set_pool_size(2);
    {
        const auto first = pool.take(1), second = pool.take(2), third = pool.take(1);
        CHECK(first && !first.degraded());
        CHECK(pool.stats().slots_in_use == 4 && pool.stats().in_progress == 0);
        CHECK(error_of([&] { enter(pool, 1, HASTY); }).code == 503);
    }
    CHECK(enter(pool, 2, HASTY));
    check_nothing_held(pool);
}

CASE(admission_tells_when_to_try_again) {
    hand_clock clock;
    slot_pool  pool(clock.function());
    pool.set_pool_size(2);
    const auto serve = [&](int64_t ms) {
        const auto mine = pool.take(1);
        clock.ms += ms;
    };
    const auto retry_after = [&] {
        const auto all = pool.take(2);
        return error_of([&] { enter(pool, 1, HASTY); }).retry_after_s;
    };
    CHECK(retry_after() == 1);
    serve(5000);
    CHECK(pool.stats().mean_service_s == 5 && retry_after() == 3); // half of 5, rounded up
    {
        std::vector<int>                     order;
        std::vector<std::unique_ptr<queued>> waiting;
        {
            const auto all = pool.take(2);
            for (int i = 0; i < 3; i++) {
                waiting.push_back(std::make_unique<queued>(pool, 2, order, i));
            }
            CHECK(error_of([&] { enter(pool, 1, limits(3, 0)); }).retry_after_s == 10); // 5 s x (3 + 1) / 2
        }
        for (const auto & each : waiting) {
            each->end();
        }
    }
    serve(10000);
    CHECK(pool.stats().mean_service_s == 6);
    serve(1000000000);
    CHECK(retry_after() == 3600);
}

CASE(admission_refuses_everybody_once_closed) {
    slot_pool pool;
    pool.set_pool_size(1);
    std::optional<slot_pool::lease> first = enter(pool, 1, PATIENT);
    std::vector<std::thread>        waiting;
    for (int i = 0; i < 4; i++) {
        waiting.emplace_back([&] {
            const auto refused = error_of([&] { enter(pool, 1, PATIENT, !SESSION); });
            CHECK(refused.code == 503 && std::string(refused.what()) == "the server is shutting down");
        });
    }
    wait_until([&] { return pool.stats().waiting == 4; });
    pool.close();
    for (auto & thread : waiting) {
        thread.join();
    }
    CHECK(error_of([&] { enter(pool, 1, PATIENT); }).code == 503);
    CHECK(pool.take(1)); // is llama-server's to refuse
    CHECK(pool.stats().in_progress == 1 && pool.stats().exhausted == 0);
    first.reset();
    check_nothing_held(pool);
}

CASE(admission_leases_move) {
    slot_pool pool;
    pool.set_pool_size(2);
    slot_pool::lease held;
    CHECK(!held);
    held                   = enter(pool, 1, HASTY);
    slot_pool::lease moved = std::move(held);
    CHECK(!held && moved && pool.stats().slots_in_use == 1);
    moved = enter(pool, 1, HASTY);
    CHECK(pool.stats().slots_in_use == 1 && pool.stats().in_progress == 1);
    moved = {};
    check_nothing_held(pool);
}

CASE(admission_under_load_loses_nothing) {
    slot_pool pool;
    pool.set_pool_size(4);
    std::atomic<int64_t>     in_pool{0};
    std::atomic<uint64_t>    too_many{0}, exhausted{0}, degraded{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 32; t++) {
        threads.emplace_back([&, t] {
            uint32_t random = t + 1;
            for (int i = 0; i < 200; i++) {
                random            = random * 1664525 + 1013904223;
                const int64_t n   = 1 + random / 7 % 6;
                const auto    mix = random >> 28;
                try {
                    if (mix < 3) {
                        const auto standard = pool.take(n);
                        std::this_thread::yield();
                    } else {
                        const auto mine = pool.enter(n, mix < 9, limits(24, mix == 15 ? FOREVER_MS : mix % 3),
                                                     [&] { return mix == 4; });
                        if (mine && !mine.degraded()) {
                            const int64_t taken = std::min<int64_t>(n, 4);
                            CHECK((in_pool += taken) <= 4);
                            std::this_thread::yield();
                            in_pool -= taken;
                        }
                        degraded += mine.degraded();
                    }
                } catch (const atlas::error & e) {
                    CHECK(e.retry_after_s >= 1);
                    (e.code == 429 ? too_many : exhausted)++;
                }
            }
        });
    }
    for (auto & thread : threads) {
        thread.join();
    }
    check_nothing_held(pool);
    const auto stats = pool.stats();
    CHECK(stats.too_many == too_many && stats.exhausted == exhausted && stats.degraded == degraded);
    CHECK(enter(pool, 4, HASTY));
}

CASE(error_response_says_when_to_try_again) {
    const auto refused = atlas::error_response(atlas::error(503, "full", 7));
    CHECK(refused.status == 503 && refused.headers.size() == 1);
    CHECK(refused.headers[0].first == "Retry-After" && refused.headers[0].second == "7");
    CHECK(atlas::error_response(atlas::error(404, "none")).headers.empty());
}
