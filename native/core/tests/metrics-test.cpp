#include "atlas-metrics.hpp"
#include "cases.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <numeric>
#include <thread>
#include <vector>

using namespace std::chrono_literals;
using atlas::duration_buckets;
using atlas::metrics;
using atlas::recorder;
using atlas::request_outcome;
using atlas::request_route;
using atlas::restore_result;
using atlas::token_source;

static uint64_t total(const atlas::duration_counts & counts) {
    return std::accumulate(counts.counts.begin(), counts.counts.end(), uint64_t{0});
}

static double middle_of(size_t bucket) {
    return (double) (duration_buckets::upper_bound(bucket - 1) + duration_buckets::upper_bound(bucket)) / 2;
}

CASE(metrics_merge_what_all_threads_recorded) {
    recorder values(2, 1, true);
    // more at once than have a shard of their own, then as many again in the shards of those that ended
    for (int round = 0; round < 2; round++) {
        std::vector<std::thread> threads;
        for (size_t i = 0; i < 2 * recorder::N_OWNED; i++) {
            threads.emplace_back([&values] {
                for (int n = 0; n < 1000; n++) {
                    values.add(0);
                    values.add(1, 3);
                    values.record(0, 2us);
                }
            });
        }
        for (auto & thread : threads) {
            thread.join();
        }
    }
    const uint64_t n = 2 * 2 * recorder::N_OWNED * 1000;
    CHECK(values.count(0) == n);
    CHECK(values.count(1) == 3 * n);
    CHECK(total(values.read(0)) == n);
    CHECK(values.read(0).sum_ns == 2000 * n);
}

CASE(metrics_never_fall_while_they_are_read) {
    recorder          values(1, 0, true);
    std::atomic<bool> is_done{false};
    std::thread       writer([&] {
        for (int i = 0; i < 200000; i++) {
            values.add(0);
        }
        is_done = true;
    });
    uint64_t          before = 0;
    while (!is_done) {
        const uint64_t now = values.count(0);
        CHECK(now >= before);
        before = now;
    }
    writer.join();
    CHECK(values.count(0) == 200000);
}

CASE(metrics_of_two_recorders_are_apart) {
    constexpr int    N_THREADS = 8;
    constexpr size_t N         = 10000;
    atlas::recorder  first(4, 1, true);
    auto             other = std::make_unique<atlas::recorder>(9, 3, true);
    const auto       count = [&](bool has_other) {
        std::vector<std::thread> threads;
        for (int i = 0; i < N_THREADS; i++) {
            threads.emplace_back([&] {
                for (size_t n = 0; n < N; n++) {
                    first.add(3);
                    if (has_other) {
                        other->add(8, 2);
                        other->record(2, std::chrono::microseconds(1));
                    }
                }
            });
        }
        for (auto & thread : threads) {
            thread.join();
        }
    };
    count(true);
    CHECK(first.count(3) == N_THREADS * N && first.count(2) == 0);
    CHECK(other->count(8) == 2 * N_THREADS * N && other->read(2).sum_ns == 1000 * N_THREADS * N);
    CHECK(first.read(0).sum_ns == 0);
    other.reset(); // the threads' numbers stay good for the one that is left, and for one that is new
    count(false);
    CHECK(first.count(3) == 2 * N_THREADS * N);
    other = std::make_unique<atlas::recorder>(1, 1, true);
    other->add(0);
    CHECK(other->count(0) == 1);
}

CASE(metrics_record_nothing_when_off) {
    recorder values(1, 1, false);
    values.add(0);
    values.record(0, 1s);
    CHECK(!values.is_on());
    CHECK(values.count(0) == 0);
    CHECK(total(values.read(0)) == 0);
}

CASE(metrics_middle_of_a_bucket_is_within_a_sixteenth) {
    const int64_t hour = std::chrono::nanoseconds(1h).count();
    for (int64_t ns = 1000; ns <= hour; ns += 1 + ns / 997) {
        const size_t i = duration_buckets::index_of(ns);
        CHECK(i > 0 && i < duration_buckets::N - 1);
        CHECK(std::abs(middle_of(i) - (double) ns) <= (double) ns / 16);
    }
}

CASE(metrics_bounds_are_inclusive_and_rise) {
    for (size_t i = 0; i < duration_buckets::N - 1; i++) {
        const auto bound = (int64_t) duration_buckets::upper_bound(i);
        CHECK(duration_buckets::index_of(bound) == i);
        CHECK(duration_buckets::index_of(bound + 1) == i + 1);
    }
}

CASE(metrics_what_no_bucket_fits_is_in_the_first_and_the_last) {
    recorder values(0, 1, true);
    values.record(0, -5ns);
    values.record(0, 0ns);
    values.record(0, 512ns);
    values.record(0, 2h);
    values.record(0, std::chrono::nanoseconds::max());
    const auto found = values.read(0);
    CHECK(found.counts.front() == 3);
    CHECK(found.counts.back() == 2);
    CHECK(total(found) == 5);
}

CASE(metrics_percentiles_are_those_of_the_durations) {
    recorder             values(0, 1, true);
    std::vector<int64_t> durations;
    uint64_t             state = 1;
    for (int i = 0; i < 10000; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        // from 1 us to 1 h, evenly over the orders of magnitude
        durations.push_back((int64_t) (1000 * std::pow(3.6e9, (double) (state >> 11) / (double) (1ull << 53))));
        values.record(0, std::chrono::nanoseconds(durations.back()));
    }
    std::sort(durations.begin(), durations.end());
    const auto found = values.read(0);
    for (const double quantile : {0.01, 0.5, 0.9, 0.99, 0.999}) {
        const auto rank   = (uint64_t) (quantile * (double) durations.size());
        uint64_t   so_far = 0;
        size_t     i      = 0;
        while (so_far + found.counts[i] <= rank) {
            so_far += found.counts[i++];
        }
        CHECK(std::abs(middle_of(i) / (double) durations[rank] - 1) <= 1.0 / 16);
    }
}

CASE(metrics_know_the_routes) {
    CHECK(atlas::route_of("/v1/chat/completions") == request_route::chat);
    CHECK(atlas::route_of("/prefix/chat/completions") == request_route::chat);
    CHECK(atlas::route_of("/v1/completions") == request_route::completions);
    CHECK(atlas::route_of("/completions") == request_route::completion);
    CHECK(atlas::route_of("/completion") == request_route::completion);
    CHECK(atlas::route_of("/v1/responses") == request_route::responses);
    CHECK(atlas::route_of("/v1/messages") == request_route::messages);
    CHECK(atlas::route_of("/infill") == request_route::infill);
}

//
// requests
//

using clock_type = atlas::request_meter::clock;

static uint64_t tokens(const metrics & from, token_source source) {
    return from.values.count(metrics::prompt_tokens(source));
}

static std::shared_ptr<atlas::lookup_result> lookup(restore_result result, int tier) {
    auto made = std::make_shared<atlas::lookup_result>();
    made->set_outcome({result, tier, 0});
    return made;
}

static atlas::sequence_result result_of(size_t index, int64_t prompt, int64_t reused, int64_t answer, bool is_partial) {
    atlas::sequence_result result;
    result.index         = index;
    result.prompt_tokens = prompt;
    result.reused_tokens = reused;
    result.answer_tokens = answer;
    result.is_partial    = is_partial;
    return result;
}

CASE(metrics_of_a_streamed_request) {
    metrics    numbers(true);
    const auto began = clock_type::now();
    {
        atlas::request_meter meter(numbers, request_route::chat, nullptr, began);
        CHECK(numbers.in_progress == 1);
        meter.set_atlas_object();
        meter.add_wait(100ms);
        meter.add_prompt(lookup(restore_result::restored, 2), began + 10ms);
        meter.add_result(result_of(0, 50, 40, 0, true), began + 15ms); // only that it begins
        CHECK(tokens(numbers, token_source::disk) == 0);
        meter.add_result(result_of(0, 50, 40, 1, true), began + 40ms);
        meter.add_result(result_of(0, 50, 40, 2, true), began + 60ms);
        CHECK(numbers.values.count(metrics::ANSWER_TOKENS) == 2);
        auto last              = result_of(0, 50, 40, 3, false);
        last.is_timed          = true;
        last.since_start       = 50ms; // 30 ms after it was posted, with the 20 ms to the last result
        last.since_first_token = 35ms;
        meter.add_result(last, began + 70ms);
        CHECK(meter.usage().prompt_tokens == 50 && meter.usage().reused_tokens == 40);
        CHECK(meter.usage().answer_tokens == 3);
        meter.complete();
    }
    CHECK(numbers.in_progress == 0);
    CHECK(numbers.values.count(metrics::requests(request_route::chat, request_outcome::ok, true)) == 1);
    CHECK(numbers.values.count(metrics::ANSWER_TOKENS) == 3);
    CHECK(tokens(numbers, token_source::disk) == 40);
    CHECK(tokens(numbers, token_source::computed) == 10);
    CHECK(numbers.values.count(metrics::CACHE_HITS) == 1);
    CHECK(numbers.values.read(metrics::FIRST_TOKEN).sum_ns == 40'000'000);
    CHECK(numbers.values.read(metrics::INTER_TOKEN).sum_ns == 20'000'000);
    CHECK(numbers.values.read(metrics::QUEUE).sum_ns == 110'000'000);
    CHECK(numbers.values.read(metrics::PREFILL).sum_ns == 15'000'000);
    CHECK(total(numbers.values.read(metrics::REQUEST)) == 1);
}

CASE(metrics_of_what_is_not_streamed_know_when_the_first_token_came) {
    metrics    numbers(true);
    const auto began = clock_type::now();
    {
        atlas::request_meter meter(numbers, request_route::completion, nullptr, began);
        for (const size_t index : {0, 1}) {
            auto last              = result_of(index, 10, 0, 5, false);
            last.is_timed          = true;
            last.since_start       = 80ms;
            last.since_first_token = index == 0 ? 50ms : 60ms;
            meter.add_prompt(nullptr, began);
            meter.add_result(last, began + 100ms);
        }
        meter.complete();
    }
    CHECK(total(numbers.values.read(metrics::FIRST_TOKEN)) == 1);
    CHECK(numbers.values.read(metrics::FIRST_TOKEN).sum_ns == 40'000'000);
    CHECK(total(numbers.values.read(metrics::INTER_TOKEN)) == 0);
    CHECK(total(numbers.values.read(metrics::QUEUE)) == 2);
    CHECK(numbers.values.count(metrics::CACHE_MISSES) == 1);
    CHECK(tokens(numbers, token_source::computed) == 20);
}

CASE(metrics_of_choices_that_share_a_prompt) {
    metrics numbers(true);
    {
        atlas::request_meter meter(numbers, request_route::completions, nullptr, clock_type::now());
        meter.set_choices(2, false);
        meter.add_prompt(lookup(restore_result::no_match, 0), clock_type::now());
        meter.add_prompt(lookup(restore_result::restored, 1), clock_type::now());
        for (size_t i = 0; i < 4; i++) {
            meter.add_result(result_of(i, 30, i < 2 ? 0 : 20, 1, true), clock_type::now());
            meter.add_result(result_of(i, 30, i < 2 ? 0 : 20, 2, true), clock_type::now());
        }
        // as the client may leave now: what is known is what all have told so far
        CHECK(meter.usage().prompt_tokens == 4 * 30 && meter.usage().reused_tokens == 2 * 20);
        CHECK(meter.usage().answer_tokens == 4 * 2);
    }
    CHECK(tokens(numbers, token_source::computed) == 30 + 10);
    CHECK(tokens(numbers, token_source::ram) == 20);
    CHECK(tokens(numbers, token_source::slot) == 30 + 30);
}

CASE(metrics_of_choices_that_are_computed_apart) {
    metrics numbers(true);
    {
        atlas::request_meter meter(numbers, request_route::completions, nullptr, clock_type::now());
        const auto           first = lookup(restore_result::no_match, 0);
        first->next_choice         = lookup(restore_result::restored, 2);
        meter.set_choices(2, true);
        meter.add_prompt(first, clock_type::now());
        meter.add_result(result_of(0, 30, 0, 1, false), clock_type::now());
        meter.add_result(result_of(1, 30, 25, 1, false), clock_type::now());
    }
    CHECK(tokens(numbers, token_source::computed) == 30 + 5);
    CHECK(tokens(numbers, token_source::disk) == 25);
}

CASE(metrics_tell_how_a_request_ended) {
    metrics    numbers(true);
    const auto count = [&](request_outcome how) {
        return numbers.values.count(metrics::requests(request_route::messages, how, false));
    };
    const auto now = clock_type::now();
    {
        atlas::request_meter(numbers, request_route::messages, nullptr, now);
    }
    {
        atlas::request_meter(numbers, request_route::messages, [] { return false; }, now);
    }
    CHECK(count(request_outcome::error) == 2);
    {
        atlas::request_meter(numbers, request_route::messages, [] { return true; }, now);
    }
    CHECK(count(request_outcome::cancelled) == 1);
    {
        atlas::request_meter(numbers, request_route::messages, [] { return true; }, now).complete();
    }
    CHECK(count(request_outcome::ok) == 1);
    {
        atlas::request_meter(numbers, request_route::messages, nullptr, now).refuse(atlas::refusal::rate);
    }
    CHECK(count(request_outcome::refused) == 1);
    CHECK(numbers.values.count(metrics::refusals(atlas::refusal::rate)) == 1);
    CHECK(total(numbers.values.read(metrics::REQUEST)) == 1);
    CHECK(numbers.in_progress == 0);
}
