// What is told of blocks adds up to what the tiers have.
#include "memory-queries.hpp"
#include "memory-test.hpp"

#include "atlas-abi.h"

#include <array>
#include <cstring>
#include <map>
#include <set>

using namespace memory_test;

constexpr size_t   AT_ONCE = 7; // few, so that a walk needs several calls
constexpr uint64_t ENTRY   = 1000 + BLOCK * 4;

// Somebody who keeps an index by what is told.
struct follower {
    std::array<std::map<uint64_t, block_change>, 3> tiers;
    size_t                                          n_anew = 0, n_left = 0;

    void follow(memory_store & store, bool is_from_start = false, const std::string & root = ROOT) {
        for (bool has_more = true; has_more;) {
            const auto told = store.take_block_changes(root, AT_ONCE, is_from_start);
            is_from_start   = false;
            has_more        = told.has_more;
            if (told.is_anew) {
                n_anew++;
                tiers = {};
            }
            for (const block_change & change : told.changes) {
                auto & blocks = tiers.at((size_t) change.tier);
                if (change.is_stored) {
                    blocks[change.key] = change;
                } else {
                    n_left += blocks.erase(change.key);
                }
            }
        }
    }

    std::set<uint64_t> keys(int tier) const {
        std::set<uint64_t> keys;
        for (const auto & [key, change] : tiers.at((size_t) tier)) {
            keys.insert(key);
        }
        return keys;
    }
};

static uint64_t number_of(const std::string & key) {
    uint64_t number;
    std::memcpy(&number, memory::digest_from_hex(key)->data(), sizeof(number));
    return number;
}

static std::set<uint64_t> blocks_in(const std::string & dir) {
    std::set<uint64_t> keys;
    for (const auto & path : files_of(dir)) {
        keys.insert(number_of(path.stem().string()));
    }
    return keys;
}

CASE(blocks_are_told_with_their_tokens_and_parents) {
    memory_store        store(options(""));
    follower            of;
    const memory_tokens tokens = some_tokens(1, 3 * BLOCK + 5);
    const auto          early  = put_all(store, slice(tokens, 0, BLOCK));
    of.follow(store); // what is there before somebody asks is told, too
    CHECK(of.n_anew == 1 && of.keys(1) == std::set<uint64_t>{number_of(early[0])});
    const auto keys = put_all(store, tokens);
    of.follow(store);
    CHECK(of.n_anew == 1 && of.keys(1).size() == 3 && of.keys(2).empty()); // no tail
    for (size_t i = 0; i < 3; i++) {
        const block_change & told = of.tiers[1].at(number_of(keys[i]));
        CHECK(told.parent == (i == 0 ? 0 : number_of(keys[i - 1])));
        CHECK(told.tokens == slice(tokens, i * BLOCK, (i + 1) * BLOCK));
    }
    CHECK(store.take_block_changes(ROOT, AT_ONCE, false).changes.empty());
    CHECK(store.take_block_changes("no root", AT_ONCE, true).changes.empty());
}

CASE(blocks_that_are_evicted_are_told) {
    memory_store store(options(dir, 4 * ENTRY, 20 * ENTRY));
    wait_indexed(store);
    store.sessions_restored();
    follower              of;
    std::set<std::string> ever;
    for (uint32_t seed = 1; seed <= 40; seed++) {
        for (const std::string & key : put_all(store, some_tokens(seed, 2 * BLOCK))) {
            ever.insert(key);
        }
        if (seed % 8 == 0) {
            of.follow(store);
        }
    }
    flush(store);
    of.follow(store);
    const auto stats = store.stats();
    CHECK(of.n_anew == 1 && of.n_left > 0);
    CHECK(of.tiers[1].size() == stats.ram_entries && of.tiers[2].size() == stats.disk_entries);
    CHECK(stats.ram_entries < ever.size() && stats.disk_entries < ever.size());
    CHECK(of.keys(2) == blocks_in(dir));
    follower late; // who comes later learns the same
    late.follow(store, true);
    CHECK(late.n_anew == 1 && late.keys(1) == of.keys(1) && late.keys(2) == of.keys(2));
}

CASE(blocks_are_told_by_the_next_start) {
    {
        memory_store store(options(dir));
        put_all(store, some_tokens(1, 5 * BLOCK));
        flush(store);
    }
    memory_store store(options(dir));
    wait_indexed(store);
    follower of;
    of.follow(store);
    CHECK(of.keys(2).size() == 5 && of.keys(2) == blocks_in(dir) && of.keys(1).empty());
}

CASE(blocks_of_others_are_not_told) {
    memory_store store(options(""));
    follower     of;
    of.follow(store);
    put(store, entry_kind::block, root_of(2), some_tokens(1, BLOCK));
    put(store, entry_kind::block, put(store, entry_kind::block, root_of(2), some_tokens(2, BLOCK)),
        some_tokens(3, BLOCK));
    memory_tokens image = some_tokens(4, BLOCK);
    image[3]            = -7; // stands for what is no text
    put(store, entry_kind::block, ROOT, image);
    of.follow(store);
    CHECK(of.keys(1).empty());
    of.follow(store, false, root_of(2)); // of another root all is told anew
    CHECK(of.n_anew == 2 && of.keys(1).size() == 3);
}

CASE(blocks_are_told_anew_where_some_were_lost) {
    constexpr uint32_t N = 20000; // more changes than wait
    memory_store       store(options("", N * 4 * ENTRY));
    follower           of;
    of.follow(store);
    for (uint32_t seed = 1; seed <= N; seed++) {
        put(store, entry_kind::block, ROOT, some_tokens(seed, BLOCK), 8);
    }
    of.follow(store);
    CHECK(of.n_anew == 2 && of.keys(1).size() == store.stats().ram_entries && of.keys(1).size() == N);
}

CASE(blocks_are_asked_for_by_query) {
    memory_store store(options(""));
    const auto   query = [&](const std::string & text) {
        return answer_memory_query(store, ATLAS_QUERY_BLOCK_CHANGES, text);
    };
    CHECK(query(R"({"root": ")" + ROOT + R"(", "from_start": false})") == R"({"anew":true,"changes":[],"more":false})");
    for (const char * const bad :
         {"", "{}", "[]", R"({"root": 1, "from_start": true})", R"({"root": "", "from_start": 1})"}) {
        CHECK(!query(bad));
    }
}
