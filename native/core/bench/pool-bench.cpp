// How long it takes to get a lease of the slot pool and to give it back: atlas-bench-pool [THREADS [SLOTS [TIMES [HELD_US]]]].
// Prints JSON, microseconds. HELD_US: how long a lease is held, which is not counted, but makes the others wait.
#include "atlas-slot-pool.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

int main(int argc, char ** argv) {
    const int  n_threads = argc > 1 ? std::atoi(argv[1]) : 64;
    const int  n_slots   = argc > 2 ? std::atoi(argv[2]) : 32;
    const int  n_times   = argc > 3 ? std::atoi(argv[3]) : 2000;
    const auto held      = std::chrono::microseconds(argc > 4 ? std::atoi(argv[4]) : 0);

    atlas::AtlasServerConfig config;
    config.max_concurrent_atlas_requests = n_threads;
    atlas::slot_pool pool;
    pool.set_pool_size(n_slots);

    using clock = std::chrono::steady_clock;
    std::vector<std::vector<double>> of_thread(n_threads);
    std::vector<std::thread>         threads;
    for (auto & times : of_thread) {
        threads.emplace_back([&] {
            for (int i = 0; i < n_times; i++) {
                auto            began = clock::now();
                clock::duration taken;
                {
                    const auto lease = pool.enter(1, true, config, {});
                    taken            = clock::now() - began;
                    if (held.count() > 0) {
                        std::this_thread::sleep_for(held);
                    }
                    began = clock::now();
                }
                taken += clock::now() - began;
                times.push_back(std::chrono::duration<double, std::micro>(taken).count());
            }
        });
    }
    std::vector<double> all;
    for (int i = 0; i < n_threads; i++) {
        threads[i].join();
        all.insert(all.end(), of_thread[i].begin(), of_thread[i].end());
    }
    std::sort(all.begin(), all.end());
    const auto percentile = [&](double share) { return all[(size_t) (share * (all.size() - 1))]; };
    std::printf("{\"samples\": %zu, \"p50\": %.2f, \"p99\": %.2f, \"p999\": %.2f, \"longest\": %.2f}\n", all.size(),
                percentile(0.5), percentile(0.99), percentile(0.999), all.back());
}
