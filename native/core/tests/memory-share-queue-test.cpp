// What waits to be sent to tier 3, and what is kept there; budgets; a directory as the tier.
#include "directory-tier.hpp"
#include "shared-test.hpp"

#include <algorithm>
#include <thread>

namespace fs = std::filesystem;
using namespace memory_test;

CASE(a_full_queue_drops_the_newest) {
    const auto     place    = std::make_shared<scripted_tier>();
    memory_options with     = sharing(place);
    with.shared.queue_bytes = 2500;
    sharing_server first(place, with);
    place->hold_up("probe");
    const auto keys = put_all(first.store, some_tokens(1, 4 * BLOCK)); // 1,000 bytes and tokens each
    CHECK(first.store.stats().shared.queue_entries == 2 && first.store.stats().shared.drops == 2);
    CHECK(first.store.stats().shared.queue_bytes <= 2500);
    place->resume();
    CHECK(first.store.flush_shared(60));
    CHECK(place->written == (std::vector<std::string>{name_of(keys[0]), name_of(keys[1])}));
    // what was dropped is sent when it is next used, beginnings first
    find(first.store, some_tokens(1, 4 * BLOCK));
    CHECK(first.store.flush_shared(60));
    CHECK(place->written ==
          (std::vector<std::string>{name_of(keys[0]), name_of(keys[1]), name_of(keys[2]), name_of(keys[3])}));
}

CASE(only_what_is_reused_is_sent_where_that_is_wanted) {
    const auto     place  = std::make_shared<scripted_tier>();
    memory_options with   = sharing(place);
    with.shared.write     = share_policy::reused;
    const auto     tokens = some_tokens(1, 2 * BLOCK);
    sharing_server first(place, with);
    put_all(first.store, tokens);
    CHECK(first.store.flush_shared(60) && place->calls("put") == 0);
    find(first.store, tokens);
    CHECK(first.store.flush_shared(60) && place->calls("put") == 2);
    memory_access access;
    access.session_id = "ada";
    first.store.put(make_entry(entry_kind::block, ROOT, some_tokens(2, BLOCK), 100), "", access);
    CHECK(first.store.flush_shared(60) && place->calls("put") == 3);

    with.shared.write = share_policy::none;
    sharing_server second(place, with);
    put_all(second.store, some_tokens(3, BLOCK));
    find(second.store, some_tokens(3, BLOCK));
    CHECK(second.store.flush_shared(60) && place->calls("put") == 3);
    CHECK(second.fetch(tokens).n_entries == 2);
}

CASE(a_tail_that_was_superseded_is_not_sent) {
    const auto     place  = std::make_shared<scripted_tier>();
    const auto     tokens = some_tokens(1, BLOCK);
    sharing_server first(place);
    place->hold_up("probe");
    const auto tail = put(first.store, entry_kind::tail, ROOT, slice(tokens, 0, 4));
    put(first.store, entry_kind::tail, ROOT, slice(some_tokens(2, 9), 0, 4)); // holds the sharer up, with the first
    const auto later = put(first.store, entry_kind::tail, ROOT, slice(tokens, 0, 8), 1000, tail);
    place->resume();
    CHECK(first.store.flush_shared(60));
    CHECK(place->values.count(name_of(later)) == 1);
}

CASE(what_was_used_is_kept_ends_before_beginnings) {
    const auto     place  = std::make_shared<scripted_tier>();
    memory_options with   = sharing(place);
    with.shared.keep_s    = 0.2;
    const auto     tokens = some_tokens(1, 3 * BLOCK);
    sharing_server first(place, with);
    const auto     keys = put_all(first.store, tokens);
    CHECK(first.store.flush_shared(60));
    place->look([&](auto & at) { return at.values.erase(name_of(keys[1])); });
    find(first.store, tokens);
    wait_until([&] { return first.store.stats().shared.kept > 0 && first.store.stats().shared.written_entries == 4; });
    CHECK(place->look([&](auto & at) { return at.kept; }) ==
          (std::vector<std::string>{name_of(keys[2]), name_of(keys[1]), name_of(keys[0])}));
    CHECK(place->look([&](auto & at) { return at.values.count(name_of(keys[1])); }) == 1); // sent again
}

CASE(what_is_deleted_leaves_the_shared_tier) {
    const auto     place  = std::make_shared<scripted_tier>();
    const auto     tokens = some_tokens(1, 2 * BLOCK);
    sharing_server first(place);
    const auto     keys = put_all(first.store, tokens);
    first.store.extend_session("ada", 0, keys[0], BLOCK);
    first.store.extend_session("ada", 1, keys[1], 2 * BLOCK);
    CHECK(first.store.flush_shared(60));
    CHECK(first.store.remove_session("ada", true));
    wait_until([&] { return place->look([](auto & at) { return at.values.empty(); }); });
}

CASE(a_tier_that_cannot_be_asked_is_read_at_once) {
    const auto place  = std::make_shared<scripted_tier>(false);
    const auto tokens = some_tokens(1, 3 * BLOCK);
    shared_by_another(place, slice(tokens, 0, 2 * BLOCK));
    sharing_server second(place);
    CHECK(second.fetch(tokens).n_entries == 2 && find(second.store, tokens).n_tokens == 2 * BLOCK);
    CHECK(second.store.stats().shared.asked == 0);
}

CASE(what_is_on_its_way_counts) {
    const auto place  = std::make_shared<scripted_tier>();
    const auto tokens = some_tokens(1, 3 * BLOCK);
    shared_by_another(place, tokens);
    sharing_server second(place);
    second.store.expect_blocks_of(1000);
    for (size_t n = 1; n <= 2; n++) { // the first by what a block has, the next by what came
        const size_t n_before = place->calls("get");
        place->hold_up("get");
        std::thread fetching([&] { second.fetch(slice(tokens, 0, n * BLOCK)); });
        wait_until([&] { return place->calls("get") > n_before; });
        const auto stats = second.store.stats();
        CHECK(stats.held_bytes >= 2 * 1000 && stats.held_bytes <= stats.held_limit);
        place->resume();
        fetching.join();
        CHECK(second.store.stats().held_bytes == 0 && find(second.store, tokens).n_tokens == n * BLOCK);
    }
}

CASE(a_budget_of_ram_holds_for_what_is_fetched) {
    const auto place  = std::make_shared<scripted_tier>();
    const auto tokens = some_tokens(1, 8 * BLOCK);
    shared_by_another(place, tokens);
    memory_options with = sharing(place);
    with.ram_bytes      = 3500;
    sharing_server second(place, with);
    CHECK(second.fetch(tokens).n_entries == 3);
    CHECK(second.store.stats().ram_bytes <= 3500 && find(second.store, tokens).n_tokens == 3 * BLOCK);
}

CASE(what_is_fetched_goes_to_the_disk_too) {
    const auto place  = std::make_shared<scripted_tier>();
    const auto tokens = some_tokens(1, 3 * BLOCK);
    shared_by_another(place, tokens);
    memory_options with = sharing(place, dir);
    with.ram_bytes      = 0;
    sharing_server second(place, with);
    wait_indexed(second.store);
    CHECK(second.fetch(tokens).n_entries == 3 && find(second.store, tokens).n_tokens == 3 * BLOCK);
    flush(second.store);
    CHECK(second.store.stats().disk_entries == 3);
}

CASE(a_directory_is_a_tier) {
    const auto        tokens = some_tokens(1, 3 * BLOCK + 5);
    const std::string shared = dir + "/mount";
    fs::create_directory(shared);
    std::vector<std::string> keys;
    {
        memory_store first(sharing(std::make_shared<directory_tier>(shared, MiB, false)));
        keys = put_all(first, tokens);
        CHECK(first.flush_shared(60));
    }
    // files and layout are those of a memory path
    {
        memory_store as_path(options(shared));
        wait_indexed(as_path);
        CHECK(find(as_path, tokens).n_tokens == tokens.size() && as_path.stats().foreign_files == 0);
    }
    memory_store second(sharing(std::make_shared<directory_tier>(shared, MiB, false)));
    wait_until([&] { return second.fetch(ROOT, tokens.data(), tokens.size(), false, {}).n_entries > 0; });
    CHECK(find(second, tokens).n_tokens == tokens.size());

    const auto other = some_tokens(2, BLOCK);
    fs::rename(shared, shared + ".away");
    CHECK(second.fetch(ROOT, other.data(), other.size(), false, {}).n_entries == 0);
    CHECK(second.stats().shared.problem.find(shared) != std::string::npos);
    fs::rename(shared + ".away", shared);
    wait_until([&] { return second.stats().shared.problem.empty(); });
}
