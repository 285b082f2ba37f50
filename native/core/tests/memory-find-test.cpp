// What is found, and what is refused.
#include "memory-test.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <stdexcept>

using namespace memory_test;

CASE(round_trip_ram) {
    memory_store store(options());
    const auto   tokens = some_tokens(1, 3 * BLOCK + 5);
    const auto   keys   = put_all(store, tokens);
    CHECK(store.contains(keys[0]) && !store.contains(root_of(1)) && !store.contains("no key"));
    const auto match = find(store, tokens);
    CHECK(match.n_tokens == tokens.size() && match.tier == 1 && match.blocks.back()->kind == entry_kind::tail);
    CHECK(find(store, tokens, false, root_of(1)).n_tokens == 0);
    CHECK(find(store, {}).n_tokens == 0);
    CHECK(store.find("no key", tokens.data(), tokens.size(), false).n_tokens == 0);
    CHECK(!store.flush(1).complete); // there is no disk
}

CASE(round_trip_disk) {
    const auto tokens = some_tokens(1, 3 * BLOCK + 5);
    {
        memory_store store(options(dir));
        put_all(store, tokens);
        const auto result = store.flush(60);
        CHECK(result.complete && result.entries <= 4 && result.bytes <= store.stats().disk_bytes);
        CHECK(store.stats().written_entries == 4 && store.stats().written_bytes == store.stats().disk_bytes);
        CHECK(store.stats().disk_bytes == bytes_of(dir));
    }
    memory_store store(options(dir));
    wait_indexed(store);
    CHECK(store.stats().disk_entries == 4 && store.stats().disk_bytes == bytes_of(dir));
    CHECK(store.stats().ram_entries == 0);
    const auto match = find(store, tokens);
    CHECK(match.n_tokens == tokens.size() && match.tier == 2 && store.stats().read_entries == 4);
    CHECK(find(store, tokens).tier == 1 && store.stats().read_entries == 4);
    struct stat info;
    CHECK(::stat((dir + "/blocks").c_str(), &info) == 0 && (info.st_mode & 0777) == 0700);
    CHECK(::stat(file_of(dir, match.blocks[0]->key).c_str(), &info) == 0 && (info.st_mode & 0777) == 0600);
}

CASE(partial_match) {
    memory_store store(options());
    const auto   tokens = some_tokens(1, 3 * BLOCK + 5);
    put_all(store, tokens);
    for (size_t n = 0; n <= tokens.size(); n++) {
        CHECK(find(store, slice(tokens, 0, n)).n_tokens == n);
        auto edited = tokens;
        if (n < tokens.size()) {
            edited[n] = -7;
            CHECK(find(store, edited).n_tokens == n);
        }
    }
    auto longer = tokens;
    longer.insert(longer.end(), 40, 3);
    CHECK(find(store, longer).n_tokens == tokens.size());
}

CASE(where_a_prompt_parts_from_what_is_kept) {
    memory_store store(options());
    const auto   tokens = some_tokens(1, 3 * BLOCK + 5);
    put_all(store, tokens);
    for (size_t n = 0; n < tokens.size(); n++) {
        auto edited      = tokens;
        edited[n]        = -7;
        const auto match = find(store, edited);
        CHECK(match.n_known == n && match.has_parted);
        CHECK(find(store, slice(tokens, 0, n)).n_known == n && !find(store, slice(tokens, 0, n)).has_parted);
    }
    auto longer = tokens;
    longer.insert(longer.end(), 40, 3);
    CHECK(find(store, longer).n_known == tokens.size() && !find(store, longer).has_parted);
    // what a checkpoint is missing for is known, too
    CHECK(find(store, longer, true).n_tokens == 0 && find(store, longer, true).n_known == tokens.size());
    CHECK(!find(store, tokens, false, root_of(1)).has_parted);
}

CASE(nearest_of_many_children) {
    memory_store               store(options());
    std::vector<memory_tokens> all;
    for (int i = 0; i < 300; i++) {
        memory_tokens tokens = some_tokens(i % 7, BLOCK);
        for (size_t k = i % (BLOCK - 1) + 1; k < BLOCK; k++) {
            tokens[k] = i * 31 % 11;
        }
        tokens.resize(i % 3 ? BLOCK : i % (BLOCK - 1) + 1);
        put(store, tokens.size() == BLOCK ? entry_kind::block : entry_kind::tail, ROOT, tokens, 10);
        all.push_back(tokens);
    }
    for (uint32_t i = 0; i < 200; i++) {
        auto wanted = some_tokens(i % 8, BLOCK);
        for (size_t k = i % BLOCK; k < BLOCK; k++) {
            wanted[k] = i % 11;
        }
        size_t best = 0;
        for (const auto & tokens : all) {
            const size_t n = std::min(tokens.size(), wanted.size());
            best = std::max<size_t>(best, std::mismatch(tokens.begin(), tokens.begin() + n, wanted.begin()).first -
                                              tokens.begin());
        }
        CHECK(find(store, wanted).n_tokens == best);
    }
}

CASE(checkpoints) {
    const auto tokens = some_tokens(1, 3 * BLOCK + 5);
    for (const bool reopen : {false, true}) {
        auto store = std::make_unique<memory_store>(options(dir));
        // blocks of 0 bytes, as where all state is in checkpoints
        const auto keys = put_all(*store, tokens, 0);
        put(*store, entry_kind::checkpoint, ROOT, slice(tokens, 0, 3));
        put(*store, entry_kind::checkpoint, keys[0], {});
        put(*store, entry_kind::checkpoint, keys[1], slice(tokens, 32, 36));
        put(*store, entry_kind::checkpoint, keys[1], slice(tokens, 32, 39));
        put(*store, entry_kind::checkpoint, keys[2], slice(tokens, 48, 52));
        auto other = slice(tokens, 32, 38);
        other[2]   = -1;
        put(*store, entry_kind::checkpoint, keys[1], other);
        flush(*store);
        if (reopen) {
            store.reset();
            store = std::make_unique<memory_store>(options(dir));
            wait_indexed(*store);
        }
        const size_t positions[] = {3, 16, 36, 39, 52};
        for (size_t n = 0; n <= tokens.size(); n++) {
            size_t expected = 0;
            for (const size_t position : positions) {
                expected = position <= n ? position : expected;
            }
            const auto match = find(*store, slice(tokens, 0, n), true);
            CHECK(match.n_tokens == expected && match.n_known == n);
        }
        auto edited = tokens;
        edited[34]  = -1; // the checkpoint that matches is where no block goes on
        CHECK(find(*store, edited, true).n_tokens == 16);
        CHECK(find(*store, edited, true).n_known == 34); // where the prompts part
    }
}

CASE(checkpoints_beyond) {
    const auto    tokens = some_tokens(1, 3 * BLOCK + 5);
    memory_store  store(options(dir));
    const auto    keys = put_all(store, tokens);
    const auto    tip  = put(store, entry_kind::checkpoint, keys[2], slice(tokens, 48, 52)); // at 52 tokens
    memory_access access;
    const auto    look = [&](size_t n, size_t rewind) {
        auto wanted = slice(tokens, 0, n);
        wanted.push_back(-1);
        access.rewind = rewind;
        return store.find(ROOT, wanted.data(), wanted.size(), true, access);
    };
    for (size_t n = 1; n <= tokens.size(); n++) {
        for (const size_t rewind : {1, 3, 20, 40}) {
            const auto match  = look(n, rewind);
            const bool is_far = n + rewind < 52;
            CHECK(match.n_tokens == (is_far ? 0 : n < 52 ? n : 52));
            CHECK(match.n_beyond == (is_far || n >= 52 ? 0 : 52 - n));
            CHECK(is_far ? !match.checkpoint : match.checkpoint->key == tip);
            CHECK(match.blocks.size() == (match.n_tokens + BLOCK - 1) / BLOCK);
        }
    }
    put(store, entry_kind::checkpoint, keys[1], {}); // at 32 tokens: what is exact is not passed over for nothing
    CHECK(look(32, 40).n_beyond == 0 && look(40, 11).n_tokens == 32 && look(40, 12).n_tokens == 40);
    CHECK(look(20, 40).n_tokens == 20 && look(20, 40).n_beyond == 12);
}

CASE(unreadable_checkpoint_beyond) {
    const auto  tokens = some_tokens(1, 2 * BLOCK);
    std::string beyond;
    {
        memory_store store(options(dir));
        const auto   keys = put_all(store, tokens);
        put(store, entry_kind::checkpoint, keys[0], {});
        beyond = put(store, entry_kind::checkpoint, keys[1], {});
        flush(store);
    }
    memory_store  store(options(dir, 0));
    memory_access access;
    access.rewind = 8;
    wait_indexed(store);
    CHECK(truncate(file_of(dir, beyond).c_str(), 10) == 0);
    const auto match = store.find(ROOT, tokens.data(), 30, true, access);
    CHECK(match.n_tokens == BLOCK && match.n_beyond == 0 && match.checkpoint);
    CHECK(store.stats().bad_checksum == 1);
}

CASE(refuses_bad_entries) {
    memory_store store(options());
    const auto   tokens = some_tokens(1, BLOCK + 1);
    CHECK(store.put(make_entry(entry_kind::block, ROOT, slice(tokens, 0, BLOCK - 1), 1)).empty());
    CHECK(store.put(make_entry(entry_kind::block, ROOT, tokens, 1)).empty());
    CHECK(store.put(make_entry(entry_kind::tail, ROOT, {}, 1)).empty());
    CHECK(store.put(make_entry(entry_kind::tail, ROOT, slice(tokens, 0, BLOCK), 1)).empty());
    CHECK(store.put(make_entry(entry_kind::checkpoint, ROOT, slice(tokens, 0, BLOCK), 1)).empty());
    CHECK(store.put(make_entry(entry_kind::block, "root", slice(tokens, 0, BLOCK), 1)).empty());
    CHECK(store.stats().ram_entries == 0);
    for (const size_t wrong : {0, 15, 1025}) {
        memory_options bad = options();
        bad.block_tokens   = wrong;
        bool is_refused    = false;
        try {
            memory_store refused(bad);
        } catch (const std::invalid_argument & error) {
            is_refused = std::string(error.what()).find("block_tokens") != std::string::npos;
        }
        CHECK(is_refused);
    }
}

CASE(missing_block_costs_what_follows_only) {
    const auto tokens = some_tokens(1, 4 * BLOCK);
    for (int round = 0; round < 20; round++) {
        const std::string        own = dir + "/" + std::to_string(round);
        std::vector<std::string> keys;
        {
            memory_store store(options(own));
            keys = put_all(store, tokens, 200000);
            flush(store);
        }
        memory_store store(options(own));
        wait_indexed(store);
        std::filesystem::remove(file_of(own, keys[1]));
        CHECK(find(store, tokens).n_tokens == BLOCK);
    }
}
