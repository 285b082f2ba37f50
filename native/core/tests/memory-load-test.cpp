// Many threads, many entries.
#include "memory-test.hpp"

#include <unistd.h>

#include <atomic>
#include <fstream>
#include <random>

using namespace memory_test;

CASE(threads) {
    memory_options small    = options(dir, 300000, 400000);
    small.write_queue_bytes = 100000;
    auto             store  = std::make_unique<memory_store>(small);
    std::atomic<int> found{0};
    for (int round = 0; round < 2; round++) {
        std::vector<std::thread> threads;
        for (uint32_t t = 0; t < 6; t++) {
            threads.emplace_back([&, t] {
                std::minstd_rand random(t + 1);
                std::string      tail;
                for (int i = 0; i < 150; i++) {
                    const auto tokens = some_tokens(random() % 20, BLOCK * (1 + random() % 8) + random() % BLOCK);
                    if (random() % 2) {
                        const auto keys = put_all(*store, tokens, 500 + random() % 1000);
                        tail = put(*store, entry_kind::tail, keys[0], some_tokens(random() % 9, 3), 300, tail);
                        put(*store, entry_kind::checkpoint, keys[0], {}, 100);
                    } else {
                        found += find(*store, tokens, random() % 2).n_tokens > 0;
                    }
                    if (random() % 20 == 0) {
                        store->flush(0.01);
                    }
                    const memory_stats stats = store->stats();
                    CHECK(stats.ram_bytes <= 300000 && stats.pending_bytes <= 100000);
                    CHECK(round > 0 || stats.disk_bytes <= 400000); // then files are still being counted
                }
            });
        }
        for (auto & thread : threads) {
            thread.join();
        }
        flush(*store);
        CHECK(store->stats().bad_checksum == 0 && store->stats().disk_problem.empty());
        wait_indexed(*store);
        wait_until([&] { return store->stats().disk_bytes == bytes_of(dir); });
        store.reset(); // the second round begins while the index is being rebuilt
        store = std::make_unique<memory_store>(small);
    }
    CHECK(found > 0);
}

static uint64_t resident_bytes() {
    uint64_t      pages = 0;
    std::ifstream file("/proc/self/statm");
    file >> pages >> pages;
    return pages * (uint64_t) ::sysconf(_SC_PAGESIZE);
}

CASE(many_entries) {
    constexpr int N = 20000;
    {
        memory_options large    = options(dir, 0, 1024 * MiB);
        large.write_queue_bytes = 1024 * MiB;
        memory_store store(large);
        for (int i = 0; i < N / 10; i++) {
            put_all(store, some_tokens(i, 10 * BLOCK), 10);
        }
        CHECK(store.flush(250).complete && store.stats().disk_entries == N);
    }
    const uint64_t resident = resident_bytes();
    const auto     start    = std::chrono::steady_clock::now();
    memory_store   store(options(dir, 0, 1024 * MiB));
    wait_indexed(store);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    CHECK(store.stats().disk_entries == N);
    std::printf("indexed %d entries in %.2f s: %.0f a second; %.0f bytes each\n", N, seconds, N / seconds,
                (double) (resident_bytes() - resident) / N);
    CHECK(find(store, some_tokens(N / 20, 10 * BLOCK)).n_tokens == 10 * BLOCK);
}
