// The root under which the tier that servers share knows an entry: that of its conversation, whatever became of entries
// before it.
#include "catalog-driver.hpp"
#include "scripted-tier.hpp"

using namespace memory_test;
using memory::catalog_audit;
using memory::digest;

namespace {

// A conversation of three blocks, of one session, that the disk and the shared tier have.
struct shared_conversation {
    catalog_driver      of;
    std::vector<digest> keys;

    static memory_options on_disk_only() {
        memory_options with = options("/nowhere", 1);
        with.shared.place   = std::make_shared<scripted_tier>();
        return with;
    }

    shared_conversation() : of(on_disk_only()) {
        const auto  tokens = some_tokens(1, 3 * BLOCK);
        std::string parent = ROOT;
        for (size_t i = 0; i < 3; i++) {
            auto entry     = make_entry(entry_kind::block, parent, slice(tokens, i * BLOCK, (i + 1) * BLOCK), 100);
            entry.position = i * BLOCK;
            keys.push_back(of.put(entry));
            parent = memory::digest_hex(keys.back());
            of.catalog->sessions.extend("ada", i, keys.back(), (i + 1) * BLOCK);
        }
        while (of.write()) {
        }
    }

    void send_all() {
        for (const digest & key : keys) {
            of.catalog->note_shared(SHARED_TIER, key, true);
        }
    }

    const memory::index_node & node(size_t i) { return *catalog_audit::node(*of.catalog, keys[i]); }

    std::vector<memory::share_job> removals_of_the_session() {
        auto taken       = of.catalog->sessions.take("ada");
        bool is_unwanted = true;
        while (!taken->chain.empty()) {
            of.catalog->unref(*taken, is_unwanted, 1);
        }
        return of.catalog->sharing(SHARED_TIER)->take_removals();
    }
};

} // namespace

CASE(the_root_is_looked_up_once_for_a_conversation) {
    shared_conversation of;
    CHECK(of.of.catalog->sharing(SHARED_TIER)->last_sequence() == 3);
    CHECK(of.node(0).root && *of.node(0).root == key_of(ROOT));
    // one that is put asks no entry but the one before it
    CHECK(of.node(1).root == of.node(0).root && of.node(2).root == of.node(0).root);
}

CASE(what_is_deleted_is_removed_under_its_root_though_an_entry_before_it_is_lost) {
    shared_conversation of;
    of.send_all();
    of.of.files.erase(of.keys[1]);
    of.of.catalog->lose_file(of.keys[1]);
    const auto removals = of.removals_of_the_session();
    CHECK(removals.size() == 2 && removals[0].key == of.keys[2] && removals[1].key == of.keys[0]);
    CHECK(removals[0].root == key_of(ROOT) && removals[1].root == key_of(ROOT));
}

CASE(what_a_start_finds_is_known_by_its_root_unless_an_entry_before_it_is_lost) {
    for (const bool is_whole : {true, false}) {
        shared_conversation of;
        if (!is_whole) {
            of.of.files.erase(of.keys[1]);
        }
        const auto chain = of.keys;
        of.of.open();
        for (size_t i = 0; i < chain.size(); i++) {
            of.of.catalog->sessions.extend("ada", i, chain[i], (i + 1) * BLOCK);
        }
        of.send_all();
        const auto removals = of.removals_of_the_session();
        CHECK(removals.size() == (is_whole ? 3u : 1u));
        for (const auto & removal : removals) {
            CHECK(removal.root == key_of(ROOT));
        }
    }
}
