// What is stored where: dedup, tails, budgets, leases.
#include "memory-test.hpp"

#include "entry-file.hpp"

#include <random>

namespace fs = std::filesystem;
using namespace memory_test;

CASE(shared_prefix_once) {
    memory_store store(options(dir));
    const auto   prompt = some_tokens(1, 4 * BLOCK);
    for (int i = 0; i < 10; i++) {
        auto       tokens = prompt;
        const auto own    = some_tokens(100 + i, BLOCK);
        tokens.insert(tokens.end(), own.begin(), own.end());
        put_all(store, tokens);
    }
    flush(store);
    const uint64_t file = memory::file_bytes(BLOCK, 1000);
    CHECK(store.stats().ram_entries == 14 && store.stats().written_entries == 14);
    CHECK(store.stats().written_bytes == 14 * file && bytes_of(dir) == 14 * file);
}

CASE(tail_grows) {
    const auto tokens = some_tokens(1, 2 * BLOCK);
    {
        memory_store store(options(dir));
        std::string  tail;
        for (size_t n = 1; n < BLOCK; n += 3) {
            tail = put(store, entry_kind::tail, ROOT, slice(tokens, 0, n), 100, tail);
            CHECK(store.stats().ram_entries == 1);
            CHECK(find(store, tokens).n_tokens == n);
            if (n % 2) { // both: superseded when on disk, and before
                flush(store);
            }
        }
        const std::string block = put(store, entry_kind::block, ROOT, slice(tokens, 0, BLOCK), 100, tail);
        CHECK(!store.contains(tail) && store.contains(block));
        flush(store);
        wait_until([&] { return store.stats().disk_bytes == memory::file_bytes(BLOCK, 100); });
        CHECK(files_of(dir).size() == 1 && store.stats().disk_entries == 1);
        CHECK(store.stats().bad_checksum == 0);
    }
    memory_store store(options(dir));
    wait_indexed(store);
    CHECK(find(store, tokens).n_tokens == BLOCK);
}

CASE(superseded_entry_comes_back) {
    memory_store      store(options(dir));
    const auto        tokens = some_tokens(1, BLOCK);
    const std::string first  = put(store, entry_kind::tail, ROOT, slice(tokens, 0, 5));
    flush(store);
    const std::string second = put(store, entry_kind::tail, ROOT, slice(tokens, 0, 9), 1000, first);
    CHECK(!store.contains(first));
    CHECK(put(store, entry_kind::tail, ROOT, slice(tokens, 0, 5)) == first);
    CHECK(store.contains(first));
    flush(store);
    CHECK(store.contains(first) && fs::exists(file_of(dir, first)) && fs::exists(file_of(dir, second)));
    put(store, entry_kind::block, ROOT, tokens, 1000, "no key");
    put(store, entry_kind::block, ROOT, tokens, 1000, second);
    put(store, entry_kind::block, ROOT, tokens, 1000, root_of(9));
    flush(store);
    wait_until([&] { return !fs::exists(file_of(dir, second)); });
    CHECK(find(store, tokens).n_tokens == BLOCK);
}

CASE(budgets_hold) {
    constexpr uint64_t RAM = 40000, DISK = 30000, QUEUE = 8000;
    memory_options     small = options(dir, RAM, DISK);
    small.write_queue_bytes  = QUEUE;
    memory_store             store(small);
    std::minstd_rand         random(1);
    std::vector<std::string> parents = {ROOT, root_of(1)};
    std::string              tail;
    for (uint32_t i = 0; i < 3000; i++) {
        const std::string parent = parents[random() % parents.size()];
        const auto        kind   = (entry_kind) (random() % 3);
        const auto        tokens = some_tokens(random() % 500, kind == entry_kind::block ? BLOCK : 1 + random() % 9);
        const std::string key    = put(store, kind, parent, tokens, random() % (i % 100 ? 3000 : 45000), tail);
        tail                     = kind == entry_kind::tail ? key : "";
        if (kind == entry_kind::block) {
            parents.push_back(key);
        }
        if (i % 16 == 0) {
            store.flush(60);
            CHECK(bytes_of(dir) <= DISK);
        }
        const memory_stats stats = store.stats();
        CHECK(stats.ram_bytes <= RAM && stats.disk_bytes <= DISK &&
              (stats.pending_bytes <= QUEUE || stats.pending_entries == 1));
        if (i % 5 == 0) {
            find(store, tokens, i % 2, parent);
            CHECK(store.stats().ram_bytes <= RAM);
        }
    }
    flush(store);
    wait_until([&] { return store.stats().disk_bytes == bytes_of(dir); });
    const memory_stats stats = store.stats();
    CHECK(stats.disk_entries == files_of(dir).size());
    CHECK(stats.evicted_ram > 0 && stats.evicted_disk > 0 && stats.ram_drops > 0 && stats.write_drops > 0);
    CHECK(stats.pending_bytes == 0 && stats.pending_entries == 0 && stats.bad_checksum == 0);
}

// Evicts in a tier that has room for five entries.
static void check_order(const std::function<std::string(uint32_t)> &     add,
                        const std::function<bool(const std::string &)> & has, const std::function<void()> & use_chain,
                        const std::vector<std::string> & chain) {
    std::vector<std::string> leaves = {add(1), add(2), add(3)};
    use_chain(); // of two: the leaf is now the youngest but for its parent
    leaves.push_back(add(4));
    CHECK(!has(leaves[0]) && has(leaves[1]) && has(leaves[2]) && has(leaves[3]));
    leaves.push_back(add(5));
    leaves.push_back(add(6));
    CHECK(!has(leaves[1]) && !has(leaves[2]) && has(chain[0]) && has(chain[1]));
    leaves.push_back(add(7));
    CHECK(has(chain[0]) && !has(chain[1]) && has(leaves[3])); // the leaf, though its parent came first
    leaves.push_back(add(8));
    CHECK(!has(chain[0]) && has(leaves[3]));
    leaves.push_back(add(9));
    CHECK(!has(leaves[3]) && has(leaves[4]));
}

CASE(evicts_in_order_ram) {
    memory_store store(options("", 5 * (1000 + BLOCK * 4)));
    const auto   tokens = some_tokens(50, 2 * BLOCK);
    const auto   chain  = put_all(store, tokens);
    check_order([&](uint32_t i) { return put(store, entry_kind::block, ROOT, some_tokens(i, BLOCK)); },
                [&](const std::string & key) { return store.contains(key); },
                [&] { CHECK(find(store, tokens).n_tokens == 2 * BLOCK); }, chain);
    CHECK(store.stats().ram_entries == 5);
}

CASE(evicts_in_order_disk) {
    memory_store store(options(dir, 0, 5 * memory::file_bytes(BLOCK, 1000)));
    const auto   tokens = some_tokens(50, 2 * BLOCK);
    const auto   chain  = put_all(store, tokens);
    flush(store);
    check_order(
        [&](uint32_t i) {
            const auto key = put(store, entry_kind::block, ROOT, some_tokens(i, BLOCK));
            flush(store);
            return key;
        },
        [&](const std::string & key) { return store.contains(key); }, [&] { CHECK(find(store, tokens).tier == 2); },
        chain);
    CHECK(store.stats().disk_entries == 5 && files_of(dir).size() == 5);
}

CASE(does_not_evict_what_leads_to_the_new) {
    memory_store store(options(dir, 3 * (1000 + BLOCK * 4), 3 * memory::file_bytes(BLOCK, 1000)));
    const auto   tokens = some_tokens(1, 6 * BLOCK);
    std::string  parent = ROOT;
    for (size_t begin = 0; begin < tokens.size(); begin += BLOCK) {
        memory_entry entry = make_entry(entry_kind::block, parent, slice(tokens, begin, begin + BLOCK), 1000);
        entry.position     = begin;
        parent             = store.put(std::move(entry));
        flush(store);
    }
    CHECK(find(store, tokens).n_tokens == 3 * BLOCK);
    const memory_stats stats = store.stats();
    CHECK(stats.ram_drops == 1 && stats.write_drops == 1 && stats.orphan_drops == 2 && stats.evicted_disk == 0);
}

CASE(lease_keeps_in_ram) {
    memory_store store(options("", 3 * (1000 + BLOCK * 4)));
    const auto   tokens = some_tokens(0, BLOCK);
    const auto   key    = put_all(store, tokens)[0];
    auto         match  = find(store, tokens);
    auto         second = match.blocks[0];
    match               = {};
    for (uint32_t i = 1; i < 20; i++) {
        put_all(store, some_tokens(i, BLOCK));
        CHECK(store.contains(key) && store.stats().ram_entries <= 3);
    }
    auto again = find(store, tokens);
    second.reset();
    again = {};
    for (uint32_t i = 20; i < 23; i++) {
        put_all(store, some_tokens(i, BLOCK));
    }
    CHECK(!store.contains(key));
}

CASE(lease_outlives_store) {
    const auto   tokens = some_tokens(0, BLOCK);
    memory_match match;
    {
        memory_store store(options());
        put_all(store, tokens);
        match = find(store, tokens);
    }
    CHECK(match.blocks[0]->data == data_of(match.blocks[0]->key, 1000));
}

CASE(dropped_write_is_made_up_for) {
    memory_options small    = options(dir);
    small.write_queue_bytes = 1500;
    memory_store store(small);
    const auto   tokens = some_tokens(1, 50 * BLOCK);
    put_all(store, tokens);
    for (int i = 0; i < 200 && store.stats().disk_entries < 50; i++) {
        flush(store);
        CHECK(find(store, tokens).n_tokens == tokens.size());
    }
    CHECK(store.stats().disk_entries == 50);
}

CASE(entry_larger_than_the_queue_is_written) {
    memory_options small    = options(dir);
    small.write_queue_bytes = 1500;
    memory_store store(small);
    const auto   key = put(store, entry_kind::tail, ROOT, some_tokens(1, 5), 5000);
    flush(store);
    CHECK(fs::exists(file_of(dir, key)) && store.stats().write_drops == 0);
}

CASE(delayed_tail_is_written_once) {
    memory_options slow = options(dir);
    slow.write_delay_s  = 3600;
    memory_store store(slow);
    const auto   tokens = some_tokens(1, BLOCK + 9);
    const auto   block  = put(store, entry_kind::block, ROOT, slice(tokens, 0, BLOCK));
    std::string  tail;
    for (size_t n = 1; n <= 9; n++) {
        tail = put(store, entry_kind::tail, block, slice(tokens, BLOCK, BLOCK + n), 1000, tail);
    }
    wait_until([&] { return fs::exists(file_of(dir, block)); });
    CHECK(store.stats().written_entries <= 1 && store.stats().pending_entries > 0);
    CHECK(find(store, tokens).n_tokens == BLOCK + 9);
    flush(store);
    CHECK(store.stats().written_entries == 2 && fs::exists(file_of(dir, tail)));
}

CASE(delay_ends) {
    memory_options slow = options(dir);
    slow.write_delay_s  = 0.05;
    memory_store store(slow);
    const auto   tail = put(store, entry_kind::tail, ROOT, some_tokens(1, 5));
    wait_until([&] { return fs::exists(file_of(dir, tail)); });
}

CASE(first_tier_only) {
    const auto          tokens   = some_tokens(1, 2 * BLOCK);
    const memory_access ram_only = {cache_strategy::lru, 1};
    {
        memory_store store(options(dir));
        const auto   first = put(store, entry_kind::block, ROOT, slice(tokens, 0, BLOCK));
        const auto   second =
            store.put(make_entry(entry_kind::block, first, slice(tokens, BLOCK, 2 * BLOCK), 1000), "", ram_only);
        flush(store);
        CHECK(files_of(dir).size() == 1 && !fs::exists(file_of(dir, second)));
        CHECK(store.find(ROOT, tokens.data(), tokens.size(), false, ram_only).n_tokens == 2 * BLOCK);
        flush(store);
        CHECK(files_of(dir).size() == 1);
        CHECK(find(store, tokens).n_tokens == 2 * BLOCK); // a request that may use all tiers has it written
        flush(store);
        CHECK(files_of(dir).size() == 2);
    }
    memory_store store(options(dir));
    wait_indexed(store);
    CHECK(store.find(ROOT, tokens.data(), tokens.size(), false, ram_only).n_tokens == 0);
    CHECK(find(store, tokens).tier == 2);
    CHECK(store.find(ROOT, tokens.data(), tokens.size(), false, ram_only).n_tokens == 2 * BLOCK);
}

CASE(reading_that_does_not_pay_is_refused) {
    const auto tokens = some_tokens(1, 8 * BLOCK);
    {
        memory_store store(options(dir, 1024 * MiB, 1024 * MiB));
        put_all(store, tokens, 32 * MiB); // more than any machine reads within the 5 ms that nobody notices
        flush(store);
    }
    memory_store store(options(dir, 0, 1024 * MiB));
    wait_indexed(store);
    memory_access access;
    access.seconds_per_token = 1e-12;
    const auto look          = [&] { return store.find(ROOT, tokens.data(), tokens.size(), false, access); };
    CHECK(look().n_tokens == tokens.size()); // what reading takes is not known before
    const auto refused = look();
    CHECK(refused.n_tokens == 0 && refused.is_too_slow);
    access.seconds_per_token = 1000;
    CHECK(look().n_tokens == tokens.size() && !look().is_too_slow);
}

CASE(smaller_budget_after_restart) {
    const uint64_t file   = memory::file_bytes(BLOCK, 1000);
    const auto     tokens = some_tokens(1, 100 * BLOCK);
    {
        memory_store store(options(dir));
        put_all(store, tokens);
        flush(store);
    }
    memory_store store(options(dir, MiB, 40 * file));
    wait_indexed(store);
    wait_until([&] { return store.stats().disk_bytes <= 40 * file; });
    CHECK(store.stats().evicted_disk == 60 && files_of(dir).size() == 40);
    CHECK(find(store, tokens).n_tokens == 40 * BLOCK);
}

CASE(two_stores_share_a_directory) {
    const auto   tokens = some_tokens(1, 4 * BLOCK);
    memory_store first(options(dir));
    const auto   keys = put_all(first, tokens);
    flush(first);
    memory_store second(options(dir, 0));
    wait_indexed(second);
    CHECK(find(second, tokens).n_tokens == 4 * BLOCK);
    put_all(second, tokens);
    fs::remove(file_of(dir, keys[2]));
    CHECK(find(second, tokens).n_tokens == 2 * BLOCK);
    CHECK(!second.contains(keys[2]) && second.stats().bad_checksum == 0);
    put_all(second, tokens);
    flush(second);
    CHECK(find(second, tokens).n_tokens == 4 * BLOCK);
}
