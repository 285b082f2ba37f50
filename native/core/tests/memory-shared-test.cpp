// Tier 3, which servers share: what is sent there, found there, and left alone there.
#include "shared-codec.hpp"
#include "shared-test.hpp"

using namespace memory_test;

CASE(what_one_server_computed_another_finds) {
    const auto place  = std::make_shared<scripted_tier>();
    const auto tokens = some_tokens(1, 3 * BLOCK + 5);
    const auto keys   = shared_by_another(place, tokens);
    CHECK(place->look([&](auto & at) { return at.written; }) ==
          (std::vector<std::string>{name_of(keys[0]), name_of(keys[1]), name_of(keys[2]), name_of(keys[3])}));
    CHECK(place->last_ttl == std::chrono::seconds(604800));

    sharing_server second(place);
    auto           longer = tokens;
    longer.insert(longer.end(), 40, 3);
    const auto fetched = second.fetch(longer);
    CHECK(fetched.n_before == 0 && fetched.n_entries == 4);
    CHECK(find(second.store, longer).n_tokens == tokens.size());
    const auto stats = second.store.stats().shared;
    CHECK(stats.lookups == 1 && stats.hits == 1 && stats.read_entries == 4 && stats.written_entries == 0);
    CHECK(stats.asked >= 5 && stats.found == 4 && stats.problem.empty());

    // what is here is not asked for again
    const auto n_probes = place->calls("probe");
    CHECK(second.store.fetch(ROOT, tokens.data(), tokens.size(), false, {}).n_entries == 0);
    CHECK(place->calls("probe") == n_probes);
}

CASE(the_tier_is_told_how_large_values_can_be) {
    sharing_server of(std::make_shared<scripted_tier>());
    const uint64_t around = memory::header_bytes(memory::MAX_TOKENS) + 1024; // of an entry, and what a seal adds
    of.store.expect_entries_up_to(100000);
    CHECK(of.place->limit >= 100000 && of.place->limit <= 100000 + around);
    of.store.expect_entries_up_to(50000); // of another kind
    CHECK(of.place->limit >= 100000);
    of.store.expect_entries_up_to(UINT64_MAX);
    CHECK(of.place->limit >= 512ull << 20);
}

CASE(only_what_is_missing_is_fetched) {
    const auto     place  = std::make_shared<scripted_tier>();
    const auto     tokens = some_tokens(1, 4 * BLOCK);
    const auto     keys   = shared_by_another(place, tokens);
    sharing_server second(place);
    put_all(second.store, slice(tokens, 0, 2 * BLOCK));
    const auto fetched = second.fetch(tokens);
    CHECK(fetched.n_before == 2 * BLOCK && fetched.n_entries == 2);
    CHECK(place->got == (std::vector<std::string>{name_of(keys[2]), name_of(keys[3])}));
    CHECK(find(second.store, tokens).n_tokens == 4 * BLOCK);
}

CASE(what_is_there_is_not_sent_twice) {
    const auto place  = std::make_shared<scripted_tier>();
    const auto tokens = some_tokens(1, 3 * BLOCK);
    shared_by_another(place, tokens);
    shared_by_another(place, tokens);
    CHECK(place->calls("put") == 3);
    sharing_server third(place);
    third.fetch(tokens);
    find(third.store, tokens);
    CHECK(third.store.flush_shared(60));
    CHECK(place->calls("put") == 3);
}

CASE(a_request_may_keep_away_from_the_shared_tier) {
    const auto place  = std::make_shared<scripted_tier>();
    const auto tokens = some_tokens(1, 2 * BLOCK);
    {
        sharing_server first(place);
        memory_access  access;
        access.max_tier = 2;
        first.store.put(make_entry(entry_kind::block, ROOT, slice(tokens, 0, BLOCK), 100), "", access);
        CHECK(first.store.flush_shared(60) && place->calls("put") == 0);
    }
    shared_by_another(place, tokens);
    const auto     n_probes = place->calls("probe");
    sharing_server second(place);
    memory_access  access;
    access.max_tier = 2;
    CHECK(second.fetch(tokens, false, access).n_entries == 0);
    access.max_tier     = 10;
    access.is_held_back = true; // the root is not known yet
    CHECK(second.store.fetch(ROOT, tokens.data(), tokens.size(), false, access).n_entries == 0);
    second.store.put(make_entry(entry_kind::block, ROOT, some_tokens(9, BLOCK), 100), "", access);
    CHECK(second.store.flush_shared(60) && place->calls("probe") == n_probes);
}

CASE(state_that_was_held_back_is_shared_under_its_root) {
    const auto     place  = std::make_shared<scripted_tier>();
    const auto     tokens = some_tokens(1, BLOCK);
    sharing_server first(place);
    memory_access  access;
    access.is_held_back = true;
    first.store.put(make_entry(entry_kind::block, root_of(7), tokens, 100), "", access);
    first.store.adopt(root_of(7), ROOT);
    CHECK(first.store.flush_shared(60));
    CHECK(place->values.count(name_of(memory_store::key_of(entry_kind::block, ROOT, tokens.data(), BLOCK))) == 1);
}

CASE(checkpoints_are_found_wherever_they_were_made) {
    const auto tokens = some_tokens(1, 12 * BLOCK + 7);
    for (const size_t at : {12 * BLOCK + 7, 12 * BLOCK, 11 * BLOCK + 3, 7 * BLOCK, 2 * BLOCK + 15}) {
        const auto place = std::make_shared<scripted_tier>();
        {
            sharing_server first(place);
            const auto     keys   = put_all(first.store, tokens);
            const auto     n      = at / BLOCK;
            const auto     parent = n == 0 ? ROOT : keys[n - 1];
            put(first.store, entry_kind::checkpoint, parent, slice(tokens, n * BLOCK, at));
            put(first.store, entry_kind::checkpoint, keys[0], slice(tokens, BLOCK, BLOCK + 1));
            CHECK(first.store.flush_shared(60));
        }
        sharing_server second(place);
        auto           longer = tokens;
        longer.insert(longer.end(), 3 * BLOCK, 3);
        second.fetch(longer, true);
        CHECK(find(second.store, longer, true).n_tokens == at);
    }
}

CASE(blocks_without_a_checkpoint_are_left_where_one_is_needed) {
    const auto place  = std::make_shared<scripted_tier>();
    const auto tokens = some_tokens(1, 12 * BLOCK + 7);
    shared_by_another(place, tokens);
    sharing_server second(place);
    CHECK(second.fetch(tokens, true).n_entries == 0 && place->calls("get") == 0);
}

CASE(a_checkpoint_alone_is_fetched_for_blocks_that_are_here) {
    const auto  place  = std::make_shared<scripted_tier>();
    const auto  tokens = some_tokens(1, 3 * BLOCK);
    std::string name;
    {
        sharing_server first(place);
        const auto     keys = put_all(first.store, tokens);
        name = name_of(put(first.store, entry_kind::checkpoint, keys[1], slice(tokens, 2 * BLOCK, 2 * BLOCK + 4)));
        CHECK(first.store.flush_shared(60));
    }
    sharing_server second(place);
    put_all(second.store, tokens);
    CHECK(second.fetch(tokens, true).n_entries == 1 && place->got == std::vector<std::string>{name});
    CHECK(find(second.store, tokens, true).n_tokens == 2 * BLOCK + 4);
}

// Each byte of a value counts.
CASE(wrong_bytes_are_a_miss_and_removed) {
    const auto tokens = some_tokens(1, 3 * BLOCK);
    for (int how = 0; how < 6; how++) {
        const auto place = std::make_shared<scripted_tier>();
        const auto keys  = shared_by_another(place, tokens);
        place->look([&](auto & at) {
            std::string & value = at.values[name_of(keys[1])];
            switch (how) {
                case 0:  value[5] ^= 1; break;
                case 1:  value.back() ^= 1; break;
                case 2:  value.pop_back(); break;
                case 3:  value.clear(); break;
                case 4:  value = at.values[name_of(keys[2])]; break; // another entry's
                default: value += "more";
            }
            return 0;
        });
        sharing_server second(place);
        CHECK(second.fetch(tokens).n_entries == 1);
        CHECK(find(second.store, tokens).n_tokens == BLOCK);
        CHECK(second.store.stats().shared.damaged == 1);
        wait_until([&] { return place->look([&](auto & at) { return at.removed.size(); }) == 1; });
        CHECK(place->removed[0] == name_of(keys[1]));
    }
}

CASE(what_a_server_cannot_read_is_a_miss_and_stays) {
    struct refusing : memory::shared_codec {
        explicit refusing(memory::unwrapping result) : result(result) {}
        const memory::unwrapping result;
        memory::unwrapping       unwrap(const std::string &, tier_value &, const memory::room_for &) const override {
            return result;
        }
    };
    for (const auto result : {memory::unwrapping::foreign, memory::unwrapping::no_room}) {
        const auto place  = std::make_shared<scripted_tier>();
        const auto tokens = some_tokens(1, 3 * BLOCK);
        shared_by_another(place, tokens);
        auto with         = sharing(place);
        with.shared.codec = std::make_shared<const refusing>(result);
        sharing_server second(place, with);
        CHECK(second.fetch(tokens).n_entries == 0);
        const auto stats = second.store.stats().shared;
        CHECK(stats.damaged == 0 && stats.read_entries == 0 && stats.problem.empty());
        CHECK(place->look([](auto & at) { return at.removed.empty() && at.values.size() == 3; }));
    }
}

CASE(what_goes_between_the_question_and_the_answer_shortens_the_match) {
    const auto place  = std::make_shared<scripted_tier>();
    const auto tokens = some_tokens(1, 3 * BLOCK);
    shared_by_another(place, tokens);
    sharing_server second(place);
    place->forgets_after_probe = true;
    CHECK(second.fetch(tokens).n_entries == 0 && second.store.stats().shared.problem.empty());
}
