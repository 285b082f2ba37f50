#include "memory-test.hpp"

#include <algorithm>

using namespace memory_test;

static const std::string LATER = root_of(1);

static memory_access held_back(int max_tier = 10, const std::string & session_id = "") {
    memory_access access;
    access.is_held_back = true;
    access.max_tier     = max_tier;
    access.session_id   = session_id;
    return access;
}

// Puts a conversation under a root that is not known yet, as blocks, a tail, and a checkpoint at the tail's end.
static void hold_all(memory_store & store, const memory_tokens & tokens, const memory_access & access) {
    std::string parent = ROOT;
    size_t      depth  = 0;
    const auto  hold   = [&](entry_kind kind, size_t begin, size_t end) {
        memory_entry entry = make_entry(kind, parent, slice(tokens, begin, end), 1000);
        entry.position     = begin;
        const auto key     = store.put(std::move(entry), "", access);
        if (!access.session_id.empty()) {
            store.extend_session(access.session_id, depth++, key, end);
        }
        parent = kind == entry_kind::block ? key : parent;
    };
    size_t begin = 0;
    for (; begin + BLOCK <= tokens.size(); begin += BLOCK) {
        hold(entry_kind::block, begin, begin + BLOCK);
    }
    hold(entry_kind::tail, begin, tokens.size());
    hold(entry_kind::checkpoint, begin, tokens.size());
}

static size_t found(memory_store & store, const memory_tokens & tokens, const std::string & root) {
    const auto access = root == ROOT ? held_back() : memory_access();
    return store.find(root, tokens.data(), tokens.size(), true, access).n_tokens;
}

CASE(adopted_entries_are_found_under_the_new_root_and_go_to_disk) {
    const auto shared = some_tokens(1, 2 * BLOCK);
    auto       first = shared, second = shared;
    for (auto * tokens : {&first, &second}) {
        const auto rest = some_tokens(tokens == &first ? 2 : 3, 70 * BLOCK + 5);
        tokens->insert(tokens->end(), rest.begin(), rest.end());
    }
    {
        memory_store store(options(dir));
        wait_indexed(store);
        hold_all(store, first, held_back(10, "ada"));
        hold_all(store, second, held_back());
        flush(store);
        CHECK(files_of(dir).empty());
        CHECK(found(store, first, ROOT) == first.size() && found(store, first, LATER) == 0);
        const auto before = store.stats();
        store.adopt(ROOT, LATER);
        const auto after = store.stats();
        CHECK(after.ram_entries == before.ram_entries && after.ram_bytes == before.ram_bytes);
        for (const auto & tokens : {first, second}) {
            CHECK(found(store, tokens, ROOT) == 0 && found(store, tokens, LATER) == tokens.size());
        }
        const auto session = store.find_sessions({"ada"}).at(0);
        CHECK(session.ram_bytes > 0 && session.n_tokens == first.size());
        CHECK(std::all_of(session.chain.begin(), session.chain.end(),
                          [&](const std::string & key) { return store.contains(key); }));
        flush(store);
    }
    memory_store store(options(dir));
    wait_indexed(store);
    CHECK(found(store, first, LATER) == first.size() && found(store, second, LATER) == second.size());
}

CASE(adoption_keeps_from_the_disk_what_its_request_does) {
    const auto   tokens = some_tokens(1, 3 * BLOCK + 5);
    memory_store store(options(dir));
    wait_indexed(store);
    hold_all(store, tokens, held_back(1));
    store.adopt(ROOT, LATER);
    flush(store);
    CHECK(files_of(dir).empty());
    CHECK(found(store, tokens, LATER) == tokens.size());
}

CASE(adoption_needs_no_room_beyond_the_budget) {
    const auto tokens = some_tokens(1, 100 * BLOCK + 5);
    uint64_t   needed = 0;
    {
        memory_store store(options(dir));
        hold_all(store, tokens, held_back());
        needed = store.stats().ram_bytes;
    }
    memory_store store(options(dir, needed));
    hold_all(store, tokens, held_back());
    CHECK(store.stats().ram_bytes == needed);
    store.adopt(ROOT, LATER);
    flush(store);
    CHECK(found(store, tokens, LATER) == tokens.size());
}
