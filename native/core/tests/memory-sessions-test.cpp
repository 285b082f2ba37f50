// Sessions, and what a policy that runs elsewhere sees and decides.
#include "entry-file.hpp"
#include "memory-test.hpp"

using namespace memory_test;

static constexpr uint64_t ENTRY = 1000 + BLOCK * 4; // bytes in RAM

static void extend(memory_store & store, const std::string & id, const std::vector<std::string> & keys) {
    for (size_t i = 0; i < keys.size(); i++) {
        store.extend_session(id, i, keys[i], (i + 1) * BLOCK);
    }
}

static void scan(memory_store & store, uint32_t begin, uint32_t end) {
    for (uint32_t seed = begin; seed < end; seed++) {
        put(store, entry_kind::block, ROOT, some_tokens(seed, BLOCK));
    }
}

CASE(session_outlives_a_scan) {
    memory_store store(options("", 10 * ENTRY));
    const auto   keys = put_all(store, some_tokens(1, 3 * BLOCK));
    extend(store, "ada", keys);
    scan(store, 100, 150);
    CHECK(find(store, some_tokens(1, 3 * BLOCK)).n_tokens == 3 * BLOCK);
    CHECK(store.stats().sessions_in_ram == 1);
    CHECK(store.remove_session("ada", false) == 0u);
    CHECK(store.stats().sessions_in_ram == 0);
    scan(store, 200, 250);
    CHECK(find(store, some_tokens(1, 3 * BLOCK)).n_tokens == 0);
}

CASE(pinned_outlives_other_sessions) {
    memory_store store(options("", 10 * ENTRY));
    const auto   pinned = put_all(store, some_tokens(1, 2 * BLOCK));
    extend(store, "ada", pinned);
    CHECK(store.pin_session("ada", true).empty() && store.stats().pinned_bytes == 2 * ENTRY);
    for (uint32_t seed = 2; seed < 30; seed++) {
        extend(store, "other " + std::to_string(seed), put_all(store, some_tokens(seed, BLOCK)));
    }
    CHECK(find(store, some_tokens(1, 2 * BLOCK)).n_tokens == 2 * BLOCK);
    CHECK(store.stats().ram_bytes <= 10 * ENTRY);
    const auto large = put_all(store, some_tokens(50, 4 * BLOCK));
    extend(store, "large", large);
    CHECK(store.pin_session("large", true).find("'large' would pin") != std::string::npos);
    CHECK(store.pin_session("ada", false).empty() && store.stats().pinned_bytes == 0);
    CHECK(store.pin_session("large", true).empty() && store.stats().pinned_bytes == 4 * ENTRY);
}

CASE(forgotten_session_leaves_what_is_shared) {
    memory_store store(options(dir));
    const auto   shared = some_tokens(1, 2 * BLOCK);
    const auto   with   = [&](uint32_t seed) {
        auto       tokens = shared;
        const auto own    = some_tokens(seed, BLOCK + 5);
        tokens.insert(tokens.end(), own.begin(), own.end());
        return tokens;
    };
    const auto ada = put_all(store, with(7)), ben = put_all(store, with(8));
    put(store, entry_kind::checkpoint, ada[2], slice(with(7), 3 * BLOCK, 3 * BLOCK + 2)); // on the way
    extend(store, "ada", ada);
    extend(store, "ben", ben);
    flush(store);
    wait_indexed(store);
    CHECK(files_of(dir).size() == 7);
    CHECK(store.remove_session("ada", true).value() > 3000 && !store.remove_session("ada", true));
    CHECK(find(store, with(7)).n_tokens == 2 * BLOCK && find(store, with(8)).n_tokens == 3 * BLOCK + 5);
    wait_until([&] { return files_of(dir).size() == 4; });
    CHECK(store.remove_session("ben", true));
    CHECK(find(store, with(8)).n_tokens == 0);
    wait_until([&] { return files_of(dir).empty(); });
}

CASE(forgotten_session_takes_its_superseded_tail_along) {
    memory_options slow = options(dir);
    slow.write_delay_s  = 3600;
    memory_store store(slow);
    const auto   tokens = some_tokens(1, BLOCK + 5);
    const auto   block  = put(store, entry_kind::block, ROOT, slice(tokens, 0, BLOCK));
    const auto   before = put(store, entry_kind::tail, block, slice(tokens, BLOCK, BLOCK + 3));
    flush(store);
    const auto after = put(store, entry_kind::tail, block, slice(tokens, BLOCK, BLOCK + 5), 1000, before);
    extend(store, "ada", {block, after});
    wait_indexed(store);
    CHECK(store.remove_session("ada", true));
    flush(store);
    wait_until([&] { return files_of(dir).empty(); });
    CHECK(find(store, tokens).n_tokens == 0);
}

CASE(find_does_not_bring_back_what_was_forgotten) {
    for (int round = 0; round < 50; round++) {
        const std::string own    = dir + "/" + std::to_string(round);
        const auto        tokens = some_tokens(1, 8 * BLOCK);
        memory_session    saved;
        {
            memory_store store(options(own));
            extend(store, "ada", put_all(store, tokens, 20000));
            flush(store);
            saved = store.sessions_since(0, 1).at(0);
        }
        memory_store store(options(own));
        wait_indexed(store);
        store.restore_session(saved);
        std::thread reader([&] { find(store, tokens); });
        std::this_thread::sleep_for(std::chrono::microseconds(round * 30));
        store.remove_session("ada", true);
        reader.join();
        flush(store);
        for (const std::string & key : saved.chain) {
            CHECK(!store.contains(key));
        }
    }
}

CASE(one_verdict_is_not_its_class) {
    memory_store store(options("", 4 * ENTRY));
    store.take_events(1);
    put(store, entry_kind::block, ROOT, some_tokens(1, BLOCK));
    CHECK(store.take_events(1).size() == 1);
    const int64_t refused = -(1ll << 62) + 2;
    store.set_order(1, &refused, 1);
    const memory_access lru = {cache_strategy::lru};
    std::string         oldest;
    for (uint32_t seed = 4; seed >= 2; seed--) {
        oldest = store.put(make_entry(entry_kind::block, ROOT, some_tokens(seed, BLOCK), 1000), "", lru);
    }
    oldest           = memory_store::key_of(entry_kind::block, ROOT, some_tokens(4, BLOCK).data(), BLOCK);
    const auto young = put(store, entry_kind::block, ROOT, some_tokens(10, BLOCK)); // in place of the refused one
    put(store, entry_kind::block, ROOT, some_tokens(11, BLOCK));
    CHECK(store.contains(young) && !store.contains(oldest));
}

// Of a session and of what drafts for it: other tokens, so that they share nothing.
static void extend_both(memory_store & store, const std::string & id, const memory_tokens & own,
                        const memory_tokens & drafts) {
    extend(store, atlas::draft_session(id), put_all(store, drafts));
    extend(store, id, put_all(store, own));
}

CASE(draft_is_a_part_of_its_session) {
    const auto     own = some_tokens(1, 3 * BLOCK), drafts = some_tokens(2, 2 * BLOCK);
    memory_session saved;
    {
        memory_store store(options(dir));
        extend_both(store, "ada", own, drafts);
        const auto told = store.sessions_since(0, 10);
        CHECK(told.size() == 1 && told[0].id == "ada" && told[0].chain.size() == 3 + 1 + 2);
        CHECK(told[0].ram_bytes == 5 * ENTRY && store.stats().sessions == 1 && store.stats().sessions_in_ram == 1);
        CHECK(store.find_sessions({"ada", atlas::draft_session("ada")}).size() == 1);

        // the draft alone changes
        const auto more = some_tokens(2, 3 * BLOCK);
        extend(store, atlas::draft_session("ada"), put_all(store, more));
        const auto again = store.sessions_since(told[0].version, 10);
        CHECK(again.size() == 1 && again[0].chain.size() == 3 + 1 + 3);
        CHECK(store.sessions_since(again[0].version, 10).empty());
        saved = again[0];
        flush(store);
    }
    memory_store store(options(dir));
    wait_indexed(store);
    store.restore_session(saved);
    CHECK(store.find_sessions({"ada"}).at(0).chain == saved.chain && store.stats().sessions == 1);
    CHECK(store.pin_session("ada", true).empty() && store.stats().pinned_bytes > 0);
    CHECK(store.stats().pinned_bytes == store.find_sessions({"ada"}).at(0).pinned_bytes);
    CHECK(store.pin_session("ada", false).empty() && store.stats().pinned_bytes == 0);
    CHECK(store.remove_session("ada", true).value() > 0 && store.stats().sessions == 0);
    wait_until([&] { return files_of(dir).empty(); });
    CHECK(!store.remove_session("ada", true));
}

CASE(draft_of_a_pinned_session_is_pinned) {
    memory_store store(options("", 20 * ENTRY));
    extend_both(store, "ada", some_tokens(1, 2 * BLOCK), some_tokens(2, BLOCK));
    CHECK(store.pin_session("ada", true).empty() && store.stats().pinned_bytes == 3 * ENTRY);
    extend_both(store, "ada", some_tokens(1, 2 * BLOCK), some_tokens(2, 2 * BLOCK));
    CHECK(store.stats().pinned_bytes == 4 * ENTRY);
    extend(store, "ben", put_all(store, some_tokens(3, BLOCK)));
    CHECK(store.pin_session("ben", true).empty());
    extend(store, atlas::draft_session("ben"), put_all(store, some_tokens(4, BLOCK)));
    CHECK(store.stats().pinned_bytes == 6 * ENTRY);
}

CASE(sessions_in_ram_are_counted_by_their_beginning) {
    memory_store store(options("", 4 * ENTRY));
    const auto   shared = put(store, entry_kind::block, ROOT, some_tokens(1, BLOCK));
    extend(store, "ada", {shared, put(store, entry_kind::checkpoint, ROOT, slice(some_tokens(1, BLOCK), 0, 3))});
    extend(store, "ben", {shared});
    CHECK(store.stats().sessions_in_ram == 2);
    for (uint32_t seed = 2; seed < 6; seed++) {
        extend(store, "other " + std::to_string(seed), put_all(store, some_tokens(seed, BLOCK)));
    }
    CHECK(!store.contains(shared) && store.stats().sessions == 6 && store.stats().sessions_in_ram == 4);
    put(store, entry_kind::block, ROOT, some_tokens(1, BLOCK));
    CHECK(store.stats().sessions_in_ram == 5); // two in the place of one
}

CASE(edited_session_lets_go_of_what_was) {
    memory_store store(options(""));
    const auto   first = put_all(store, some_tokens(1, 3 * BLOCK)), second = put_all(store, some_tokens(2, 2 * BLOCK));
    extend(store, "ada", first);
    extend(store, "ada", {first[0], second[1]});
    const auto found = store.find_sessions({"ada", "nobody"});
    CHECK(found.size() == 1 && (found[0].chain == std::vector<std::string>{first[0], second[1]}));
    CHECK(found[0].n_tokens == 2 * BLOCK && found[0].ram_bytes == 2 * ENTRY && found[0].disk_bytes == 0);
    store.extend_session("late", 5, first[0], 1); // its beginning is missing
    CHECK(store.find_sessions({"late"}).empty());
}

CASE(sessions_come_back_before_their_files) {
    const auto     tokens = some_tokens(1, 3 * BLOCK);
    memory_session saved;
    {
        memory_store store(options(dir));
        extend(store, "ada", put_all(store, tokens));
        flush(store);
        saved = store.sessions_since(0, 10).at(0);
        CHECK(saved.disk_bytes == 3 * memory::file_bytes(BLOCK, 1000) && saved.version > 0);
        CHECK(store.sessions_since(saved.version, 10).empty());
    }
    memory_store store(options(dir, 0, 10 * memory::file_bytes(BLOCK, 1000)));
    store.restore_session(saved);
    wait_indexed(store);
    scan(store, 100, 150);
    flush(store);
    CHECK(find(store, tokens).n_tokens == 3 * BLOCK);
    CHECK(store.find_sessions({"ada"})[0].last_used == saved.last_used);
}

CASE(policy_decides_what_goes) {
    memory_store store(options("", 4 * ENTRY));
    CHECK(store.take_events(100).empty());
    const auto chain = put_all(store, some_tokens(1, 2 * BLOCK));
    const auto other = put(store, entry_kind::block, ROOT, some_tokens(2, BLOCK));
    const auto made  = store.take_events(100);
    CHECK(made.size() == 3 && made[0].parent == 0 && made[1].parent == made[0].key && made[2].now == made[1].now + 1);
    CHECK(made[0].what == ATLAS_EVENT_TOUCHED && made[0].size == ENTRY && made[0].seconds > 0);
    const std::vector<int64_t> order = {INT64_MAX, 1000000, -5}; // sums must not overflow
    store.set_order(1, order.data(), order.size());
    put(store, entry_kind::block, ROOT, some_tokens(3, BLOCK));
    put(store, entry_kind::block, ROOT, some_tokens(4, BLOCK));
    CHECK(!store.contains(other) && store.contains(chain[1]));
    const auto evicted = store.take_events(100);
    CHECK(evicted.size() == 3 && evicted[2].what == ATLAS_EVENT_EVICTED && evicted[2].layer == 1);
    CHECK(evicted[2].key == made[2].key && evicted[2].priority == -5);

    find(store, some_tokens(3, BLOCK)); // touched again: what was decided before no longer holds
    const std::vector<int64_t> late = {-5, -4};
    CHECK(find(store, some_tokens(1, 2 * BLOCK)).n_tokens == 2 * BLOCK);
    store.set_order(1, late.data(), late.size());
    put(store, entry_kind::block, ROOT, some_tokens(5, BLOCK));
    CHECK(find(store, some_tokens(3, BLOCK)).n_tokens == BLOCK);
    const auto touched = store.take_events(100);
    CHECK(touched[1].key == made[1].key && touched[2].key == made[0].key); // deepest first
}

CASE(what_became_durable_is_told_where_it_is_wanted) {
    const auto saved = [](memory_store & store) {
        std::vector<memory_event> found;
        for (const memory_event & event : store.take_events(100, true)) {
            if (event.what == ATLAS_EVENT_SAVED) {
                CHECK(event.layer == 2 && event.seconds > 0);
                found.push_back(event);
            }
        }
        return found;
    };
    memory_store store(options(dir));
    wait_indexed(store);
    store.take_events(100); // whoever takes them does not want those
    put_all(store, some_tokens(1, BLOCK));
    flush(store);
    CHECK(saved(store).empty());
    put_all(store, some_tokens(2, BLOCK + 3));
    flush(store);
    const auto made = saved(store);
    CHECK(made.size() == 2 && made[1].parent == made[0].key);
    CHECK(made[0].n_tokens == BLOCK && made[0].kind == ATLAS_KIND_BLOCK && made[1].n_tokens == 3 &&
          made[1].kind == ATLAS_KIND_TAIL);
    CHECK(made[0].size + made[1].size == bytes_of(dir) - memory::file_bytes(BLOCK, 1000));
    store.take_events(100);
    put_all(store, some_tokens(3, BLOCK));
    flush(store);
    CHECK(saved(store).empty());
}
