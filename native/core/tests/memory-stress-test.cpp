// Everything at once against small budgets: what must hold at any moment, and what must be left when all is quiet.
#include "catalog.hpp"
#include "memory-test.hpp"

#include <atomic>
#include <random>

using namespace memory_test;

namespace {

constexpr uint64_t RAM = 60000, DISK = 90000, QUEUE = 30000;

memory_options small_options(const std::string & dir) {
    memory_options small    = options(dir, RAM, DISK);
    small.write_queue_bytes = QUEUE;
    small.write_delay_s     = 0.002;
    return small;
}

// One turn of a conversation as the server writes it back: blocks, a tail that supersedes the last, a checkpoint.
void take_turn(memory_store & store, std::minstd_rand & random, std::string & tail) {
    const std::string id     = "session " + std::to_string(random() % 9);
    const size_t      length = BLOCK * (random() % 5) + random() % BLOCK;
    auto              tokens = some_tokens(random() % 2, BLOCK); // system prompts
    const auto        own    = some_tokens(10 + random() % 12, length);
    tokens.insert(tokens.end(), own.begin(), own.end());

    memory_access access;
    access.strategy   = (cache_strategy) (random() % 3);
    access.max_tier   = 1 + random() % 2;
    access.session_id = random() % 4 ? id : "";
    const auto match  = find(store, tokens, random() % 2);

    std::string parent = ROOT;
    size_t      depth = 0, done = 0;
    while (tokens.size() - done >= BLOCK) {
        const size_t n_bytes = 500 + random() % 1500;
        auto         entry   = make_entry(entry_kind::block, parent, slice(tokens, done, done + BLOCK), n_bytes);
        entry.position       = done;
        parent               = store.put(std::move(entry), tail, access);
        tail.clear();
        done += BLOCK;
        store.extend_session(id, depth++, parent, done);
    }
    if (tokens.size() > done) {
        auto entry     = make_entry(entry_kind::tail, parent, slice(tokens, done, tokens.size()), 400);
        entry.position = done;
        const auto key = store.put(std::move(entry), tail, access);
        tail           = key;
        store.extend_session(id, depth++, key, tokens.size());
    }
    auto entry     = make_entry(entry_kind::checkpoint, parent, slice(tokens, done, tokens.size()), 300);
    entry.position = done;
    store.extend_session(id, depth, store.put(std::move(entry), "", access), tokens.size());
}

void manage(memory_store & store, std::minstd_rand & random) {
    const std::string id = "session " + std::to_string(random() % 9);
    switch (random() % 6) {
        case 0:
        case 1: store.pin_session(id, random() % 2); break;
        case 2:
        case 3: store.remove_session(id, random() % 2); break;
        case 4:
            for (auto & session : store.sessions_since(random() % 100, 3)) {
                if (store.remove_session(session.id, false)) {
                    session.chain.push_back("no key");
                    store.restore_session(session);
                }
            }
            break;
        default: store.find_sessions({id, "nobody"});
    }
}

void decide(memory_store & store, std::minstd_rand & random) {
    std::vector<int64_t> priorities;
    for (const memory_event & event : store.take_events(1 + random() % 300)) {
        CHECK(event.key != 0 && event.size > 0);
        priorities.push_back(random() % 8 ? (int64_t) (random() % 4000) : event.now % 2 ? INT64_MAX : INT64_MIN);
    }
    store.set_order(1 + random() % 2, priorities.data(), priorities.size());
}

} // namespace

CASE(everything_at_once) {
    const char * const seed = std::getenv("ATLAS_TEST_SEED");
    const uint32_t     base = seed ? (uint32_t) std::atoi(seed) : 1;
    for (int round = 0; round < 2; round++) {
        memory_store             store(small_options(dir)); // the second begins while the index is being rebuilt
        std::atomic<int>         at_work{3};
        std::vector<std::thread> threads;
        const auto               run = [&](uint32_t n, auto act) {
            threads.emplace_back([&, n, act] {
                std::minstd_rand random(base * 100 + round * 10 + n);
                while (at_work > 0) {
                    act(random);
                }
            });
        };
        for (uint32_t n = 0; n < 3; n++) {
            threads.emplace_back([&, n] {
                std::minstd_rand random(base * 100 + round * 10 + n);
                std::string      tail;
                for (int i = 0; i < 400; i++) {
                    take_turn(store, random, tail);
                }
                at_work--;
            });
        }
        run(3, [&](std::minstd_rand & random) {
            manage(store, random);
            std::this_thread::yield();
        });
        run(4, [&](std::minstd_rand & random) {
            decide(store, random);
            std::this_thread::sleep_for(std::chrono::microseconds(500));
        });
        run(5, [&](std::minstd_rand & random) {
            store.set_busy(random() % 2);
            if (random() % 8 == 0) {
                store.flush(0.005);
            }
            const memory_stats stats = store.stats();
            CHECK(stats.ram_bytes <= RAM && stats.pending_bytes <= QUEUE && stats.sessions <= 9);
            CHECK(stats.pinned_bytes <= stats.pinned_limit);
            CHECK(round > 0 || stats.disk_bytes <= DISK); // then files are still being counted
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        });
        for (auto & thread : threads) {
            thread.join();
        }
        store.set_busy(false);
        wait_indexed(store);
        const auto is_counted = [&] {
            const memory_stats stats = store.stats();
            return stats.disk_bytes == bytes_of(dir) && stats.disk_entries == files_of(dir).size() &&
                   stats.disk_bytes <= DISK;
        };
        flush(store);
        wait_until(is_counted);
        for (int n = 0; n < 9; n++) {
            store.remove_session("session " + std::to_string(n), true);
        }
        flush(store);
        wait_until(is_counted);
        const memory_stats stats = store.stats();
        CHECK(stats.sessions == 0 && stats.pinned_bytes == 0 && stats.unpinned_bytes == 0 &&
              stats.pending_entries == 0 && stats.pending_bytes == 0);
        CHECK(stats.bad_checksum == 0 && stats.foreign_files == 0 && stats.write_failures == 0);
        for (const auto & path : std::filesystem::directory_iterator(dir + "/tmp")) {
            CHECK(!path.exists()); // nothing is left half-written
        }
    }
}

CASE(file_lost_while_indexing) {
    memory::catalog             catalog(options(dir));
    std::vector<memory::digest> keys = {*memory::digest_from_hex(ROOT)};
    for (uint32_t n = 0; n < 3; n++) {
        memory::file_header header;
        header.parent   = keys.back();
        header.tokens   = some_tokens(n, BLOCK);
        header.position = n * BLOCK;
        header.key      = *memory::digest_from_hex(
            memory_store::key_of(entry_kind::block, memory::digest_hex(header.parent), header.tokens.data(), BLOCK));
        keys.push_back(header.key);
        catalog.add_file(header, 1000, 1);
    }
    catalog.remove_damaged_file(keys[2]); // a reader met it; what continues it stays
    catalog.update_files(keys.data(), keys.size());
    CHECK(!catalog.contains(keys[2]) && catalog.contains(keys[3]));
}
