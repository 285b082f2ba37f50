// What the memory takes besides its tiers, and what a start may give up.
#include "catalog.hpp"
#include "lease-budget.hpp"
#include "memory-test.hpp"

#include <malloc.h>

#include <atomic>
#include <thread>

namespace fs = std::filesystem;
using namespace memory_test;

static constexpr uint64_t ENTRY = 8 * MiB + BLOCK * 4; // bytes in RAM
static constexpr int      N     = 12;

// Conversations of one large block each, on disk only.
static void write_large(const std::string & dir) {
    memory_store store(options(dir, 0, 1024 * MiB));
    for (int i = 0; i < N; i++) {
        put(store, entry_kind::block, ROOT, some_tokens(i, BLOCK), 8 * MiB);
        flush(store);
    }
}

static memory_match look(memory_store & store, int i, const lookup_patience & patience = {}) {
    return store.find(ROOT, some_tokens(i, BLOCK).data(), BLOCK, false, {}, patience);
}

CASE(lookups_hold_what_they_may) {
    write_large(dir);
    memory_store store(options(dir, 2 * ENTRY, 1024 * MiB));
    wait_indexed(store);
    std::vector<memory_match> held;
    memory_match              last;
    for (int i = 0; i < N && !last.is_refused; i++) {
        held.push_back(std::move(last));
        last = look(store, i);
        CHECK(last.is_refused == (last.n_tokens == 0));
        const memory_stats stats = store.stats();
        CHECK(stats.ram_bytes <= 2 * ENTRY && stats.held_bytes <= stats.held_limit && stats.held_limit == 64 * MiB);
    }
    CHECK(held.size() - 1 == 9); // two in RAM, and seven beyond
    const uint64_t n_read = store.stats().read_entries;
    CHECK(look(store, 5).n_tokens == BLOCK && store.stats().read_entries == n_read); // what another holds is shared
    held.clear();
    CHECK(store.stats().held_bytes == 0 && look(store, 9).n_tokens == BLOCK);
}

CASE(lookups_wait_in_turn) {
    write_large(dir);
    memory_store store(options(dir, 0, 1024 * MiB));
    wait_indexed(store);
    std::vector<memory_match> held;
    for (int i = 0; i < 7; i++) {
        held.push_back(look(store, i));
    }
    std::atomic<bool>     is_gone{false};
    const lookup_patience patient = {3600, {}}, leaves = {3600, [&] { return is_gone.load(); }};
    memory_match          first, second;
    std::thread           one([&] { first = look(store, 7, leaves); });
    wait_until([&] { return store.stats().lookups_waiting == 1; });
    std::thread two([&] { second = look(store, 8, patient); });
    wait_until([&] { return store.stats().lookups_waiting == 2; });
    held.pop_back();
    one.join();
    CHECK(first.n_tokens == BLOCK && first.waited_s > 0 && !first.is_refused && store.stats().lookups_waiting == 1);
    first = {};
    two.join();
    CHECK(second.n_tokens == BLOCK);
    std::thread three([&] { first = look(store, 9, leaves); });
    wait_until([&] { return store.stats().lookups_waiting == 1; });
    is_gone = true;
    three.join();
    CHECK(first.is_refused && first.n_tokens == 0);
    std::thread four([&] { first = look(store, 10, patient); });
    wait_until([&] { return store.stats().lookups_waiting == 1; });
    store.end_waiting();
    four.join();
    CHECK(first.is_refused && store.stats().lookups_waited == 4);
}

CASE(one_lookup_of_any_size) {
    const auto tokens = some_tokens(1, 9 * BLOCK);
    {
        memory_store store(options(dir, 0, 1024 * MiB));
        for (size_t begin = 0; begin < tokens.size(); begin += BLOCK) {
            put_all(store, slice(tokens, 0, begin + BLOCK), 8 * MiB);
            flush(store);
        }
    }
    memory_store store(options(dir, 0, 1024 * MiB));
    wait_indexed(store);
    const auto match = find(store, tokens);
    CHECK(match.n_tokens == tokens.size() && store.stats().held_bytes == 9 * ENTRY);
}

CASE(what_left_a_tier_while_it_is_held_counts) {
    memory_store store(options("", 4 * (1000 + BLOCK * 4)));
    const auto   tokens = some_tokens(0, 3 * BLOCK);
    const auto   keys   = put_all(store, tokens);
    for (size_t i = 0; i < keys.size(); i++) {
        store.extend_session("ada", i, keys[i], (i + 1) * BLOCK);
    }
    auto match = find(store, tokens);
    CHECK(store.remove_session("ada", true) && store.stats().ram_entries == 0);
    CHECK(store.stats().ram_bytes == 3 * (1000 + BLOCK * 4));
    for (uint32_t i = 1; i < 10; i++) {
        put_all(store, some_tokens(i, BLOCK));
        CHECK(store.stats().ram_entries == 1);
    }
    match = {};
    for (uint32_t i = 10; i < 20; i++) {
        put_all(store, some_tokens(i, BLOCK));
    }
    CHECK(store.stats().ram_entries == 4 && store.stats().ram_bytes == 4 * (1000 + BLOCK * 4));
}

// Under a smaller budget what nobody named goes first, however late it becomes known what has a name.
CASE(sessions_are_awaited) {
    const uint64_t file   = memory::file_bytes(BLOCK, 1000);
    const auto     tokens = some_tokens(1, 4 * BLOCK);
    memory_session saved;
    {
        memory_store store(options(dir));
        const auto   keys = put_all(store, tokens);
        for (size_t i = 0; i < keys.size(); i++) {
            store.extend_session("ada", i, keys[i], (i + 1) * BLOCK);
        }
        for (uint32_t seed = 10; seed < 40; seed++) {
            put_all(store, some_tokens(seed, BLOCK));
        }
        flush(store);
        saved = store.find_sessions({"ada"}).at(0);
    }
    memory_options smaller  = options(dir, MiB, 8 * file);
    smaller.awaits_sessions = true;
    memory_store store(smaller);
    wait_indexed(store);
    const auto fresh = put(store, entry_kind::block, ROOT, some_tokens(50, BLOCK)); // which has no room
    CHECK(!store.flush(0.05).complete);
    CHECK(store.stats().evicted_disk == 0 && store.stats().disk_entries == 34 && store.stats().write_drops == 0);
    saved.is_pinned = true;
    store.restore_session(saved);
    store.sessions_restored();
    flush(store);
    wait_until([&] { return store.stats().disk_bytes <= 8 * file; });
    CHECK(fs::exists(file_of(dir, fresh)) && bytes_of(dir) <= 8 * file);
    CHECK(find(store, tokens).n_tokens == 4 * BLOCK);
}

CASE(index_has_a_budget) {
    constexpr uint64_t INDEX  = 300000; // about 420 blocks
    const auto         tokens = some_tokens(1, 20 * BLOCK);
    const auto         add    = [](memory_store & store, uint32_t from) {
        for (uint32_t seed = from; seed < from + 1000; seed++) {
            put(store, entry_kind::block, ROOT, some_tokens(seed, BLOCK), 10);
        }
    };
    memory_options small = options(dir);
    memory_session saved;
    small.index_bytes = INDEX;
    {
        memory_store store(options(dir));
        const auto   keys = put_all(store, tokens);
        for (size_t i = 0; i < keys.size(); i++) {
            store.extend_session("ada", i, keys[i], (i + 1) * BLOCK);
        }
        add(store, 100);
        flush(store);
        saved = store.find_sessions({"ada"}).at(0);
        CHECK(store.stats().index_bytes > 2 * INDEX);
    }
    {
        small.awaits_sessions = true;
        memory_store store(small); // while the files are found
        store.restore_session(saved);
        store.sessions_restored();
        wait_indexed(store);
        CHECK(store.stats().index_bytes <= INDEX && store.stats().disk_entries > 300);
        CHECK(find(store, tokens).n_tokens == 20 * BLOCK);
        add(store, 2000); // and later
        flush(store);
        wait_until([&] { return store.stats().index_bytes <= INDEX; });
        CHECK(find(store, tokens).n_tokens == 20 * BLOCK);
        wait_until([&] { return files_of(dir).size() == store.stats().disk_entries; });
    }
    small.path.clear(); // without a disk
    memory_store store(small);
    add(store, 100);
    CHECK(store.stats().index_bytes <= INDEX && store.stats().ram_entries > 200);
}

static uint64_t in_use() { return ::mallinfo2().uordblks + ::mallinfo2().hblkhd; }

// The constants of which the index's size is made are those of this machine's library.
CASE(index_counts_what_it_takes) {
    {
        memory_store store(options(dir));
        for (uint32_t seed = 0; seed < 200; seed++) {
            put_all(store, some_tokens(seed, 10 * BLOCK), 10);
        }
        flush(store);
    }
    const uint64_t before = in_use();
    memory_store   store(options(dir, 0));
    wait_indexed(store);
    const auto counted = (double) store.stats().index_bytes, real = (double) (in_use() - before);
    CHECK(store.stats().disk_entries == 2000);
    CHECK(real == 0 || (counted > 0.9 * real && counted < 1.2 * real)); // a sanitizer's malloc does not tell
}

// The lock is let go of between the steps of a search.
CASE(a_search_goes_on_where_the_catalog_has_changed) {
    constexpr size_t            N_BLOCKS = 200, STEP = 64;
    const memory_tokens         tokens = some_tokens(1, N_BLOCKS * BLOCK);
    memory::catalog             entries(options(""));
    const auto                  root   = *memory::digest_from_hex(ROOT);
    memory::digest              parent = root;
    std::vector<memory::digest> keys;
    for (size_t i = 0; i < N_BLOCKS; i++) {
        memory_entry entry =
            make_entry(entry_kind::block, memory::digest_hex(parent), slice(tokens, i * BLOCK, (i + 1) * BLOCK), 10);
        entry.key      = memory_store::key_of(entry.kind, entry.parent, entry.tokens.data(), BLOCK);
        const auto key = *memory::digest_from_hex(entry.key);
        entries.put(std::make_shared<const memory_entry>(std::move(entry)), key, parent, std::nullopt, {});
        entries.sessions.extend("ada", i, key, (i + 1) * BLOCK);
        parent = key;
    }
    memory::session taken   = *entries.sessions.take("ada");
    const auto      give_up = [&](size_t n) {
        bool is_unwanted = true;
        CHECK(entries.unref(taken, is_unwanted, n) > 0);
        entries.take_released();
    };
    const auto begin = [&] {
        memory::prefix_search search;
        search.root     = root;
        search.tokens   = tokens.data();
        search.n_tokens = tokens.size();
        search.max_tier = 2;
        CHECK(entries.choose(search, STEP) && search.plan.blocks.size() == STEP);
        return search;
    };
    const auto end = [&](memory::prefix_search & search) {
        while (entries.choose(search, STEP)) {
        }
        for (const auto & piece : search.plan.blocks) {
            CHECK(piece.entry && piece.entry->data == data_of(piece.entry->key, 10));
        }
        return search.plan.n_tokens / BLOCK;
    };
    auto first = begin(), second = begin();
    give_up(100); // what is ahead
    CHECK(end(first) == 100);
    give_up(50); // and what was found, and is leased
    CHECK(end(second) == STEP && entries.stats().ram_bytes == 100 * (10 + BLOCK * 4));
    first.plan = {};
    CHECK(entries.stats().ram_bytes == STEP * (10 + BLOCK * 4));
    second.plan = {};
    CHECK(entries.stats().ram_bytes == 50 * (10 + BLOCK * 4));
}
