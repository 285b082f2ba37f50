// Recording a number, beside a counter behind a mutex and beside what prometheus-cpp does: a double that is added to by
// compare-and-swap, and for a histogram a search for the bucket, then two such additions.
#include "atlas-recorder.hpp"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <mutex>

namespace {

constexpr size_t N_COUNTERS = 64;

atlas::recorder recorded(N_COUNTERS, 8, true);

class mutex_counter {
  public:
    void add(double n) {
        const std::lock_guard<std::mutex> lock(mutex);
        value += n;
    }

  private:
    std::mutex mutex;
    double     value = 0;
};

class swapped_counter {
  public:
    void add(double n) {
        double before = value.load();
        while (!value.compare_exchange_weak(before, before + n)) {
        }
    }

  private:
    std::atomic<double> value{0};
};

// 160 bounds: as many as one of ours has buckets between 1 us and 1 s.
class swapped_histogram {
  public:
    swapped_histogram() {
        double bound = 1e-6;
        for (auto & each : bounds) {
            each = bound *= 1.09;
        }
    }

    void record(double seconds) {
        const auto found = std::lower_bound(bounds.begin(), bounds.end(), seconds);
        counts[found - bounds.begin()].add(1);
        sum.add(seconds);
    }

  private:
    std::array<double, 160>          bounds;
    std::array<swapped_counter, 161> counts;
    swapped_counter                  sum;
};

mutex_counter     locked;
swapped_counter   swapped;
swapped_histogram swapped_times;

// Durations over six orders of magnitude, so that no bucket is guessed; the same for all.
int64_t next_ns(uint64_t & state) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (int64_t) (state >> (34 + (state >> 60)));
}

void counter_of_atlas(benchmark::State & state) {
    for (auto _ : state) {
        recorded.add(3);
        benchmark::ClobberMemory();
    }
}

void counter_behind_a_mutex(benchmark::State & state) {
    for (auto _ : state) {
        locked.add(1);
        benchmark::ClobberMemory();
    }
}

void counter_by_compare_and_swap(benchmark::State & state) {
    for (auto _ : state) {
        swapped.add(1);
        benchmark::ClobberMemory();
    }
}

void durations_alone(benchmark::State & state) {
    uint64_t random = 1;
    for (auto _ : state) {
        benchmark::DoNotOptimize(next_ns(random));
    }
}

void histogram_of_atlas(benchmark::State & state) {
    uint64_t random = 1;
    for (auto _ : state) {
        recorded.record(2, std::chrono::nanoseconds(next_ns(random)));
        benchmark::ClobberMemory();
    }
}

void histogram_by_compare_and_swap(benchmark::State & state) {
    uint64_t random = 1;
    for (auto _ : state) {
        swapped_times.record((double) next_ns(random) / 1e9);
        benchmark::ClobberMemory();
    }
}

void the_clock(benchmark::State & state) {
    for (auto _ : state) {
        benchmark::DoNotOptimize(std::chrono::steady_clock::now());
    }
}

void reading_all_of_a_histogram(benchmark::State & state) {
    for (auto _ : state) {
        benchmark::DoNotOptimize(recorded.read(2));
    }
}

} // namespace

BENCHMARK(counter_of_atlas)->ThreadRange(1, 2);
BENCHMARK(counter_behind_a_mutex)->ThreadRange(1, 2);
BENCHMARK(counter_by_compare_and_swap)->ThreadRange(1, 2);
BENCHMARK(durations_alone);
BENCHMARK(histogram_of_atlas)->ThreadRange(1, 2);
BENCHMARK(histogram_by_compare_and_swap)->ThreadRange(1, 2);
BENCHMARK(the_clock);
BENCHMARK(reading_all_of_a_histogram);

BENCHMARK_MAIN();
