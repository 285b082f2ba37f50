// What sessions may hold, and what happens when that is not enough.
#include "catalog.hpp"
#include "memory-test.hpp"

namespace fs = std::filesystem;
using namespace memory_test;

static constexpr uint64_t ENTRY = 1000 + BLOCK * 4; // bytes in RAM

static void extend(memory_store & store, const std::string & id, const std::vector<std::string> & keys) {
    for (size_t i = 0; i < keys.size(); i++) {
        store.extend_session(id, i, keys[i], (i + 1) * BLOCK);
    }
}

static memory_session session_of(const memory_store & store, const std::string & id) {
    const auto found = store.find_sessions({id});
    CHECK(found.size() == 1);
    return found[0];
}

CASE(another_turn_leaves_the_end_of_a_session) {
    memory_store      store(options(dir));
    const auto        tokens = some_tokens(1, BLOCK);
    const std::string tail   = put(store, entry_kind::tail, ROOT, slice(tokens, 0, 5));
    store.extend_session("ada", 0, tail, 5);
    memory_access ada, ben;
    ada.session_id   = "ada";
    ben.session_id   = "ben";
    const auto go_on = [&](size_t n, const memory_access & access) {
        const auto kind = n == BLOCK ? entry_kind::block : entry_kind::tail;
        return store.put(make_entry(kind, ROOT, slice(tokens, 0, n), 1000), tail, access);
    };
    go_on(7, {});
    go_on(8, ben);
    CHECK(store.contains(tail));
    store.extend_session("ben", 0, tail, 5);
    go_on(9, ada); // two have it
    flush(store);
    CHECK(store.contains(tail) && fs::exists(file_of(dir, tail)));
    store.remove_session("ben", false);
    CHECK(store.pin_session("ada", true).empty());
    store.extend_session("ada", 0, go_on(BLOCK, ada), BLOCK);
    flush(store);
    CHECK(!store.contains(tail));
    wait_until([&] { return !fs::exists(file_of(dir, tail)); });
}

CASE(what_two_pinned_sessions_share_counts_once) {
    memory_store store(options("", 10 * ENTRY));
    const auto   shared = put_all(store, some_tokens(1, 3 * BLOCK));
    for (const char * const id : {"ada", "ben"}) {
        auto keys = shared;
        keys.push_back(put(store, entry_kind::block, shared.back(), some_tokens(id[0], BLOCK)));
        extend(store, id, keys);
        CHECK(store.pin_session(id, true).empty());
    }
    CHECK(store.stats().pinned_bytes == 5 * ENTRY && store.stats().unpinned_bytes == 0);
    CHECK(session_of(store, "ben").pinned_bytes == 4 * ENTRY);
    CHECK(store.remove_session("ada", true) == ENTRY && store.stats().pinned_bytes == 4 * ENTRY);
    CHECK(store.pin_session("ben", false).empty() && store.stats().pinned_bytes == 0);
}

CASE(pinned_session_grows_beyond_the_limit) {
    memory_store store(options("", 10 * ENTRY));
    const auto   tokens = some_tokens(1, 8 * BLOCK);
    const auto   first = put_all(store, some_tokens(2, 2 * BLOCK)), keys = put_all(store, tokens);
    extend(store, "first", first);
    CHECK(store.pin_session("first", true).empty());
    store.extend_session("ada", 0, keys[0], BLOCK);
    CHECK(store.pin_session("ada", true).empty());
    extend(store, "ada", keys);
    CHECK(store.stats().pinned_bytes == 5 * ENTRY && store.stats().unpinned_bytes == 5 * ENTRY);
    CHECK(session_of(store, "ada").is_pinned && session_of(store, "ada").pinned_bytes == 3 * ENTRY);
    for (uint32_t seed = 10; seed < 40; seed++) { // what is beyond is kept as that of other sessions
        extend(store, "other " + std::to_string(seed), put_all(store, some_tokens(seed, BLOCK)));
    }
    CHECK(find(store, tokens).n_tokens == 3 * BLOCK && find(store, some_tokens(2, 2 * BLOCK)).n_tokens == 2 * BLOCK);
    CHECK(store.pin_session("first", false).empty());
    CHECK(put_all(store, tokens) == keys); // the next turn: now there is room
    CHECK(session_of(store, "ada").pinned_bytes == 5 * ENTRY && store.stats().pinned_bytes == 5 * ENTRY);
}

CASE(pins_come_back_from_the_beginning) {
    const uint64_t file   = memory::file_bytes(BLOCK, 1000);
    const auto     tokens = some_tokens(1, 8 * BLOCK);
    memory_session saved;
    {
        memory_store store(options(dir, MiB, 100 * file));
        extend(store, "ada", put_all(store, tokens));
        flush(store);
        saved = session_of(store, "ada");
    }
    memory_store store(options(dir, 0, 10 * file));
    saved.is_pinned = true;
    store.restore_session(saved);
    wait_indexed(store); // in the order of the directory, which is none
    CHECK(store.stats().pinned_bytes == 5 * file && store.stats().unpinned_bytes == 3 * file);
    for (uint32_t seed = 10; seed < 40; seed++) {
        extend(store, "other " + std::to_string(seed), put_all(store, some_tokens(seed, BLOCK)));
        flush(store);
    }
    CHECK(find(store, tokens).n_tokens == 5 * BLOCK);
}

CASE(deleted_before_the_files_are_known) {
    const std::string path = dir + "/memory";
    memory_session    ada, ben;
    {
        memory_store store(options(path));
        auto         keys = put_all(store, some_tokens(1, 2 * BLOCK));
        extend(store, "ben", keys);
        ben = session_of(store, "ben");
        keys.push_back(put(store, entry_kind::block, keys[1], some_tokens(2, BLOCK)));
        extend(store, "ada", keys);
        ada = session_of(store, "ada");
        flush(store);
    }
    put_away(path);
    memory_store store(options(path));
    store.restore_session(ada);
    store.restore_session(ben);
    CHECK(store.remove_session("ada", true) == 0u && store.find_sessions({"ada"}).empty());
    CHECK(!store.remove_session("ada", true));
    bring_back(path);
    wait_until([&] { return files_of(dir).size() == 2; });
    wait_indexed(store);
    CHECK(find(store, some_tokens(1, 2 * BLOCK)).n_tokens == 2 * BLOCK);
}

namespace {

// An index with small limits, and what its entries are held for.
struct small_index {
    std::map<int, memory::ref_counts> held;
    memory::session_index             index;

    static memory::digest key(int n) {
        memory::digest key = {};
        key[0]             = (uint8_t) n;
        return key;
    }

    explicit small_index(memory::session_limits limits)
        : index([this](const memory::digest & key, const memory::ref_counts & now) { held[key[0]] = now; }, limits) {}
};

} // namespace

CASE(sessions_that_are_idle_longest_go) {
    small_index small({3, 1000});
    auto &      index = small.index;
    for (const int n : {1, 2, 3}) {
        index.extend(std::to_string(n), 0, small.key(n), 1);
    }
    index.set_pinned("1", true);
    index.extend("2", 0, small.key(2), 1); // the third is now idle longest of those that are not pinned
    index.extend("4", 0, small.key(4), 1);
    CHECK(index.find("1") && index.find("2") && !index.find("3") && index.find("4") && index.dropped() == 1);
    CHECK(small.held[3].n_sessions == 0 && small.held[1].n_sessions == 1);
    memory::session old;
    CHECK(index.restore("5", old) == 0 && index.dropped() == 2); // it would be the next to go
    old.last_used = 1e12;
    CHECK(index.restore("5", old) > 0 && !index.find("2"));
    index.set_pinned("4", true);
    index.set_pinned("5", true);
    index.extend("6", 0, small.key(6), 1); // no more than that can be pinned
    CHECK(!index.find("6") && index.size() == 3 && small.held[6].n_sessions == 0);
}

CASE(entries_of_sessions_are_bounded) {
    small_index small({100, 40});
    auto &      index = small.index;
    for (int n = 0; n < 60; n++) {
        index.extend("a", n, small.key(n), 1);
    }
    CHECK(index.find("a")->chain.size() == 40 && index.dropped() > 0); // it is the only one
    index.extend("b", 0, small.key(100), 1);
    CHECK(!index.find("a") && index.find("b"));
    int n_held = 0;
    for (const auto & [key, ref_counts] : small.held) {
        n_held += (int) ref_counts.n_sessions;
    }
    CHECK(n_held > 1 && n_held < 41); // in steps
    while (index.unref_pending(5)) {
    }
    CHECK(index.held().size() == 1 && index.held().count(small.key(100)));
}

CASE(superseded_jobs_do_not_wait) {
    memory_options slow = options(dir);
    slow.write_delay_s  = 3600;
    memory::catalog               catalog(slow);
    std::optional<memory::digest> last;
    for (size_t n = 1; n < BLOCK; n++) {
        auto entry     = make_entry(entry_kind::tail, ROOT, slice(some_tokens(1, BLOCK), 0, n), 1000);
        entry.key      = memory_store::key_of(entry.kind, ROOT, entry.tokens.data(), n);
        const auto key = memory::digest_from_hex(entry.key);
        catalog.put(std::make_shared<memory_entry>(entry), *key, *memory::digest_from_hex(ROOT), last, {});
        last = key;
        CHECK(catalog.queue.n_jobs() == 1 && catalog.queue.entries() == 1);
        CHECK(catalog.take_released().size() == (n > 1 ? 2 : 0)); // RAM's and the queue's, freed by the caller
    }
    CHECK(catalog.queue.pop(true) && !catalog.queue.pop(true));
}
