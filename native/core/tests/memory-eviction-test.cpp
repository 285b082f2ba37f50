// What goes first, and how that is counted.
#include "memory-test.hpp"

namespace fs = std::filesystem;
using namespace memory_test;

static uint64_t evicted(const eviction_counts & counts, cache_strategy strategy, eviction_reason why) {
    return counts[(size_t) strategy][(size_t) why];
}

CASE(strategies_share_a_tier) {
    memory_store        store(options("", 20 * (1000 + BLOCK * 4)));
    const memory_access lru = {cache_strategy::lru}, lfu = {cache_strategy::lfu};
    const auto          add = [&](uint32_t seed, const memory_access & access) {
        return store.put(make_entry(entry_kind::block, ROOT, some_tokens(seed, BLOCK), 1000), "", access);
    };
    const auto use = [&](uint32_t seed, const memory_access & access) {
        CHECK(store.find(ROOT, some_tokens(seed, BLOCK).data(), BLOCK, false, access).n_tokens == BLOCK);
    };
    const auto chat   = add(0, lru);
    const auto often  = add(1, lfu);
    const auto seldom = add(2, lfu);
    use(1, lfu);
    use(1, lfu);
    for (uint32_t seed = 100; seed < 140; seed++) { // a scan of twice the tier
        add(seed, lfu);
    }
    CHECK(store.contains(chat) && store.contains(often) && !store.contains(seldom));
    for (uint32_t seed = 200; seed < 240; seed++) {
        add(seed, lru);
    }
    CHECK(!store.contains(chat) && store.contains(often));
}

CASE(dominated_checkpoints_go_first) {
    memory_store store(options("", 5 * (1000 + BLOCK * 4)));
    const auto   tokens = some_tokens(1, BLOCK + 9);
    const auto   other  = put(store, entry_kind::checkpoint, ROOT, some_tokens(2, 5));
    const auto   used   = put(store, entry_kind::checkpoint, ROOT, slice(tokens, 0, 3));
    CHECK(find(store, slice(tokens, 0, 4), true).n_tokens == 0); // there is no state of the block that it stands in
    const auto block = put(store, entry_kind::block, ROOT, slice(tokens, 0, BLOCK));
    CHECK(find(store, slice(tokens, 0, 4), true).n_tokens == 3);
    const auto early = put(store, entry_kind::checkpoint, ROOT, slice(tokens, 0, 5));
    const auto late  = put(store, entry_kind::checkpoint, block, slice(tokens, BLOCK, BLOCK + 9));
    put(store, entry_kind::checkpoint, ROOT, some_tokens(3, BLOCK - 1));
    // the youngest but one, but it leads to the last, and nobody came back to it
    CHECK(!store.contains(early) && store.contains(used) && store.contains(other) && store.contains(late));
}

CASE(orphans_go_first) {
    const uint64_t file   = memory::file_bytes(BLOCK, 1000);
    const auto     tokens = some_tokens(1, 4 * BLOCK);
    std::string    other;
    {
        memory_store store(options(dir));
        other           = put_all(store, some_tokens(2, BLOCK))[0];
        const auto keys = put_all(store, tokens);
        flush(store);
        fs::remove(file_of(dir, keys[1])); // two younger entries now cannot be reached
    }
    memory_store store(options(dir, MiB, 4 * file));
    wait_indexed(store);
    CHECK(store.stats().disk_entries == 4);
    put_all(store, some_tokens(3, BLOCK));
    put_all(store, some_tokens(4, BLOCK));
    flush(store);
    const memory_stats stats = store.stats();
    CHECK(store.contains(other) && stats.evicted_disk == 2);
    CHECK(evicted(stats.evictions_disk, cache_strategy::lru, eviction_reason::orphan) == 2);
    CHECK(find(store, tokens).n_tokens == BLOCK);
}

CASE(evictions_are_counted_by_strategy_and_reason) {
    const uint64_t file = memory::file_bytes(BLOCK, 1000);
    memory_store   store(options(dir, 2 * (1000 + BLOCK * 4), 3 * file));
    constexpr auto ADAPTIVE = cache_strategy::adaptive;
    const auto     tokens   = some_tokens(1, BLOCK);
    const auto     before   = put(store, entry_kind::tail, ROOT, slice(tokens, 0, 9));
    flush(store);
    const auto block = put(store, entry_kind::block, ROOT, tokens, 1000, before);
    flush(store);
    wait_until([&] { return store.stats().disk_entries == 1; });
    memory_stats stats = store.stats();
    CHECK(evicted(stats.evictions_ram, ADAPTIVE, eviction_reason::superseded) == 1);
    CHECK(evicted(stats.evictions_disk, ADAPTIVE, eviction_reason::superseded) == 1);
    CHECK(stats.evicted_ram == 0 && stats.evicted_disk == 0);

    for (uint32_t seed = 2; seed < 6; seed++) {
        store.put(make_entry(entry_kind::block, ROOT, some_tokens(seed, BLOCK), 1000), "", {cache_strategy::lru});
        flush(store);
    }
    stats = store.stats();
    CHECK(evicted(stats.evictions_ram, cache_strategy::lru, eviction_reason::budget) == 2);
    CHECK(evicted(stats.evictions_ram, ADAPTIVE, eviction_reason::budget) == 1 && !store.contains(block));
    CHECK(stats.evicted_ram == 3 && stats.evicted_disk == 2);

    wait_indexed(store);
    const auto last = memory_store::key_of(entry_kind::block, ROOT, some_tokens(5, BLOCK).data(), BLOCK);
    store.extend_session("ada", 0, last, BLOCK);
    CHECK(store.remove_session("ada", true) && !store.contains(last));
    stats = store.stats();
    CHECK(evicted(stats.evictions_ram, cache_strategy::lru, eviction_reason::forgotten) == 1);
    CHECK(evicted(stats.evictions_disk, cache_strategy::lru, eviction_reason::forgotten) == 1);

    const auto   damaged = some_tokens(7, BLOCK), lost = some_tokens(8, BLOCK);
    memory_store reader(options(dir, 0));
    wait_indexed(reader);
    for (const auto & each : {damaged, lost}) {
        put(reader, entry_kind::block, ROOT, each);
    }
    flush(reader);
    fs::remove(file_of(dir, memory_store::key_of(entry_kind::block, ROOT, lost.data(), BLOCK)));
    fs::resize_file(file_of(dir, memory_store::key_of(entry_kind::block, ROOT, damaged.data(), BLOCK)), file - 1);
    CHECK(find(reader, damaged).n_tokens == 0 && find(reader, lost).n_tokens == 0);
    stats = reader.stats();
    CHECK(evicted(stats.evictions_disk, ADAPTIVE, eviction_reason::damaged) == 1 && stats.bad_checksum == 1);
    CHECK(evicted(stats.evictions_disk, ADAPTIVE, eviction_reason::lost) == 1);
}
