// The catalog against a dictionary: whatever happened before, what is found is what a look at every entry finds, the
// budgets hold, and nothing goes while there is room.
#include "catalog-driver.hpp"

#include <algorithm>
#include <random>
#include <set>

using namespace memory_test;
using memory::catalog_audit;
using memory::digest;

namespace {

struct model {
    catalog_driver                of;
    std::minstd_rand              random;
    std::set<digest>              present; // where nothing is given up: all that was put and not superseded
    std::map<std::string, digest> tails;   // of sessions, their ends
    std::vector<memory_entry_ptr> leased;
    const bool                    is_roomy;

    model(uint32_t seed, const memory_options & given, bool is_roomy) : of(given), random(seed), is_roomy(is_roomy) {}

    size_t below(size_t n) { return random() % n; }

    // One of few conversations, which share beginnings.
    memory_tokens conversation() {
        auto       tokens = some_tokens(below(2), BLOCK + below(3));
        const auto own    = some_tokens(10 + below(8), below(4 * BLOCK));
        tokens.insert(tokens.end(), own.begin(), own.end());
        return tokens;
    }

    bool usable(const digest & key, int max_tier) const {
        const memory::index_node * node = catalog_audit::node(*of.catalog, key);
        return node && node->is_stored() && !node->is_forgotten && (max_tier >= 2 || node->in_ram || node->pending);
    }

    void turn() {
        const std::string id     = "session " + std::to_string(below(5));
        const auto        tokens = conversation();
        memory_access     access;
        access.strategy              = (cache_strategy) below(3);
        access.max_tier              = is_roomy || below(4) ? 2 : 1;
        access.session_id            = id;
        std::string           parent = ROOT;
        std::optional<digest> old    = tails.count(id) ? std::make_optional(tails[id]) : std::nullopt;
        size_t                depth  = 0;
        const auto            add    = [&](entry_kind kind, size_t begin, size_t end, bool supersedes) {
            memory_entry entry = make_entry(kind, parent, slice(tokens, begin, end), (size_t) tokens[0] % 7 * 200);
            entry.position     = begin;
            const auto key     = of.put(entry, supersedes ? old : std::nullopt, access);
            if (supersedes && old && *old != key && !is_held_by_others(*old, id)) {
                present.erase(*old);
            }
            present.insert(key);
            of.catalog->sessions.extend(id, depth++, key, end);
            return key;
        };
        size_t done = 0;
        for (; done + BLOCK <= tokens.size(); done += BLOCK) {
            parent = memory::digest_hex(add(entry_kind::block, done, done + BLOCK, done == 0));
        }
        tails.erase(id);
        if (done < tokens.size()) {
            tails[id] = add(entry_kind::tail, done, tokens.size(), false);
        }
        add(entry_kind::checkpoint, done, done + below(tokens.size() - done + 1), false);
    }

    // Before the session that goes on is cut.
    bool is_held_by_others(const digest & key, const std::string & id) const {
        const auto & held = of.catalog->sessions.held();
        const auto   it   = held.find(key);
        return it != held.end() && !(it->second.n_sessions == 1 && of.catalog->sessions.has(id, key));
    }

    // The longest prefix of which all is there, by looking at every entry.
    size_t longest(const memory_tokens & tokens, bool need_checkpoint, int max_tier) const {
        std::vector<std::string> chain   = {ROOT};
        size_t                   covered = 0, best = 0;
        while (covered + BLOCK <= tokens.size()) {
            const auto key = memory_store::key_of(entry_kind::block, chain.back(), tokens.data() + covered, BLOCK);
            if (!usable(key_of(key), max_tier)) {
                break;
            }
            chain.push_back(key);
            covered += BLOCK;
        }
        const auto common = [&](const memory_entry & entry, size_t begin) {
            const size_t n = std::min(entry.tokens.size(), tokens.size() - begin);
            return (
                size_t) (std::mismatch(entry.tokens.begin(), entry.tokens.begin() + n, tokens.begin() + begin).first -
                         entry.tokens.begin());
        };
        for (const auto & [key, entry] : of.known) {
            if (entry.kind != entry_kind::checkpoint && entry.parent == chain.back() && usable(key, max_tier)) {
                best = std::max(best, common(entry, covered));
            }
        }
        if (!need_checkpoint) {
            return covered + best;
        }
        size_t found = 0;
        for (const auto & [key, entry] : of.known) {
            const auto at = std::find(chain.begin(), chain.end(), entry.parent);
            if (entry.kind == entry_kind::checkpoint && at != chain.end() && usable(key, max_tier)) {
                const size_t begin = (at - chain.begin()) * BLOCK, end = begin + entry.tokens.size();
                if (end <= covered + best && common(entry, begin) == entry.tokens.size()) {
                    found = std::max(found, end);
                }
            }
        }
        return found;
    }

    // What leads to an entry that is stored nowhere is not known any more.
    bool is_linked(const memory_entry & entry) const {
        if (entry.parent == ROOT) {
            return true;
        }
        const memory::index_node * parent = catalog_audit::node(*of.catalog, key_of(entry.parent));
        return parent && parent->is_stored() && is_linked(of.known.at(key_of(entry.parent)));
    }

    // All tokens that lead to the end of an entry.
    memory_tokens whole(const memory_entry & entry) const {
        memory_tokens all = entry.tokens;
        for (std::string parent = entry.parent; parent != ROOT;) {
            const memory_entry & before = of.known.at(key_of(parent));
            all.insert(all.begin(), before.tokens.begin(), before.tokens.end());
            parent = before.parent;
        }
        return all;
    }

    // Whether the checkpoint does for the first n tokens.
    bool does_for(const memory_entry & checkpoint, const memory_tokens & tokens, size_t n, size_t rewind) const {
        const auto all = whole(checkpoint);
        return all.size() >= n && all.size() <= n + rewind && slice(all, 0, n) == slice(tokens, 0, n);
    }

    size_t longest_with_rewind(const memory_tokens & tokens, int max_tier, size_t rewind) const {
        const size_t n = longest(tokens, false, max_tier);
        for (const auto & [key, entry] : of.known) {
            if (n > 0 && entry.kind == entry_kind::checkpoint && usable(key, max_tier) && is_linked(entry) &&
                does_for(entry, tokens, n, rewind)) {
                return n;
            }
        }
        return longest(tokens, true, max_tier);
    }

    void find() {
        auto tokens = conversation();
        if (below(3) == 0) {
            tokens[below(tokens.size())] = -1;
        }
        const bool    need_checkpoint = below(2);
        memory_access access;
        access.max_tier       = below(4) ? 2 : 1;
        access.rewind         = need_checkpoint && below(2) ? below(2 * BLOCK) : 0;
        const size_t expected = access.rewind > 0 ? longest_with_rewind(tokens, access.max_tier, access.rewind)
                                                  : longest(tokens, need_checkpoint, access.max_tier);
        const auto   plan     = of.find(tokens, need_checkpoint, access);
        // among those next to it an entry of tier 2 may hide one of tier 1
        const size_t most = access.rewind > 0 ? longest(tokens, false, access.max_tier) : expected;
        CHECK(plan.n_tokens == expected || (access.max_tier == 1 && plan.n_tokens <= most));
        if (plan.n_beyond > 0) {
            const memory_entry & entry = *plan.checkpoint->entry;
            CHECK(whole(entry).size() == plan.n_tokens + plan.n_beyond &&
                  does_for(entry, tokens, plan.n_tokens, access.rewind));
            CHECK(entry.key == memory::digest_hex(plan.checkpoint->key) &&
                  whole(entry).size() == plan.checkpoint->begin + entry.tokens.size());
        }
        std::string parent = ROOT;
        size_t      begin  = 0;
        const auto  check  = [&](const memory::match_piece & piece, size_t end) {
            const memory_entry & entry = *piece.entry;
            const size_t         n     = std::min(entry.tokens.size(), end - begin);
            CHECK(piece.begin == begin && entry.parent == parent);
            CHECK(entry.key == memory::digest_hex(piece.key) && entry.data == of.known.at(piece.key).data);
            CHECK(slice(entry.tokens, 0, n) == slice(tokens, begin, begin + n));
            if (below(10) == 0) {
                leased.push_back(piece.entry);
            }
        };
        for (const auto & piece : plan.blocks) {
            if (plan.checkpoint && plan.n_beyond == 0 && plan.checkpoint->begin == begin) {
                check(*plan.checkpoint, plan.n_tokens);
            }
            check(piece, plan.n_tokens);
            begin += BLOCK;
            parent = piece.entry->key;
        }
        CHECK(begin < plan.n_tokens + BLOCK);
        if (leased.size() > 3) {
            leased.clear();
        }
    }

    void manage() {
        const std::string id      = "session " + std::to_string(below(5));
        auto &            catalog = *of.catalog;
        switch (below(is_roomy ? 2 : 4)) {
            case 0: catalog.sessions.set_pinned(id, below(2)); break;
            case 1: catalog.sessions.update_pin(id, below(4)); break;
            case 2:
                if (auto taken = catalog.sessions.take(id)) {
                    bool is_unwanted = below(2);
                    while (!taken->chain.empty()) {
                        catalog.unref(*taken, is_unwanted, 1 + below(3));
                    }
                    tails.erase(id);
                }
                break;
            default: {
                const auto keys = catalog_audit::stored(catalog);
                if (!keys.empty()) {
                    const digest key  = keys[below(keys.size())];
                    const auto * node = catalog_audit::node(catalog, key);
                    catalog.set_priority(1 + (int) below(2), key, node->last_use, (int64_t) below(1000) - 500);
                }
            }
        }
    }

    void lose() {
        if (is_roomy || of.files.empty()) {
            return;
        }
        const digest key  = std::next(of.files.begin(), (long) below(of.files.size()))->first;
        const auto * node = catalog_audit::node(*of.catalog, key);
        if (!node || !node->disk.present || node->pending) {
            return; // it is being removed or written, which is told by whoever does that
        }
        if (below(2)) {
            of.files.erase(key);
            of.catalog->lose_file(key);
        } else {
            of.catalog->remove_damaged_file(key);
        }
    }

    void restart() {
        if (is_roomy) {
            while (of.write()) {
            }
        } else if (below(2)) {
            of.given.disk_bytes = 20000 + below(60000);
        }
        std::map<std::string, memory::session> sessions;
        for (int n = 0; n < 5; n++) {
            const std::string id = "session " + std::to_string(n);
            if (const auto * one = of.catalog->sessions.find(id)) {
                sessions[id] = *one;
            }
        }
        leased.clear();
        of.open([&](const digest &) { return (int64_t) below(1000); });
        for (const auto & [id, one] : sessions) {
            memory::session_index & index   = of.catalog->sessions;
            const uint64_t          version = index.restore(id, one);
            CHECK(version > 0 && index.append(id, version, one.chain.data(), one.chain.size()));
        }
    }

    void check() {
        const auto & catalog = *of.catalog;
        catalog_audit::check(catalog);
        uint64_t n_bytes = 0;
        for (const auto & [key, file] : of.files) {
            n_bytes += file.bytes;
        }
        const memory_stats stats = catalog.stats();
        // what is removed later than it was written anew counts twice until then
        CHECK(stats.disk_bytes >= n_bytes && stats.ram_bytes <= of.given.ram_bytes);
        CHECK(stats.disk_bytes == n_bytes || of.catalog->queue.n_jobs() > 0);
        CHECK(stats.pending_bytes <= of.given.write_queue_bytes || stats.pending_entries == 1);
        if (is_roomy) {
            for (const digest & key : present) {
                CHECK(catalog.contains(key));
            }
            CHECK(stats.evicted_ram + stats.evicted_disk + stats.ram_drops + stats.write_drops == 0);
        }
    }

    void run(int n_steps) {
        for (int i = 0; i < n_steps; i++) {
            const size_t what = below(40);
            if (what < 10) {
                turn();
            } else if (what < 20) {
                find();
            } else if (what < 34) {
                of.write(is_roomy || below(8) > 0);
            } else if (what < 37) {
                manage();
            } else if (what < 39) {
                lose();
            } else {
                restart();
            }
            check();
        }
        while (of.write()) {
        }
        check();
        CHECK(of.catalog->stats().disk_bytes <= of.given.disk_bytes && of.catalog->queue.n_jobs() == 0);
    }
};

uint32_t first_seed() {
    const char * const seed = std::getenv("ATLAS_TEST_SEED");
    return seed ? (uint32_t) std::atoi(seed) : 1;
}

constexpr uint32_t N_SEEDS = 10;

} // namespace

CASE(catalog_is_as_a_dictionary_with_room) {
    for (uint32_t seed = first_seed(); seed < first_seed() + N_SEEDS; seed++) {
        model(seed, options("/nowhere"), true).run(400);
    }
}

CASE(catalog_is_as_a_dictionary_in_need) {
    for (uint32_t seed = first_seed(); seed < first_seed() + N_SEEDS; seed++) {
        memory_options small    = options("/nowhere", 20000 + seed * 1000, 40000);
        small.write_queue_bytes = 15000;
        small.write_delay_s     = seed % 2 ? 3600 : 0;
        model(seed, small, false).run(600);
    }
}
