// What every tier does, on the one that ATLAS_TEST_TIER names, which is empty when a case begins. `--drive URL` does what
// standard input says instead (tier-driver.cpp), for tests of what goes wrong.
#include "atlas-make-tier.hpp"
#include "cases.hpp"
#include "tier-driver.hpp"

#include <atomic>
#include <cstring>

using namespace std::chrono_literals;

namespace {

struct shared_tier {
    std::unique_ptr<atlas::tier> tier = atlas::make_tier(std::getenv("ATLAS_TEST_TIER"));

    static atlas::tier_deadline soon() { return atlas::tier_clock::now() + 30s; }

    void put(const std::string & key, const std::string & value, std::chrono::seconds ttl = 600s) {
        tier->put(key, {value}, ttl, soon());
    }

    std::vector<std::string> get(const std::vector<std::string> & keys, size_t most = SIZE_MAX) {
        std::vector<std::string> values;
        tier->get(keys, soon(), [&](size_t index, atlas::tier_value value) {
            CHECK(index == values.size());
            values.emplace_back(value.bytes);
            return values.size() < most;
        });
        return values;
    }

    bool has(const std::string & key) {
        const auto found = tier->probe({key}, soon());
        CHECK(found.size() == 1);
        return found[0];
    }
};

std::vector<std::string> keys_of(size_t n, const std::string & prefix = "atlas:1:0123456789abcdef:") {
    std::vector<std::string> keys;
    for (size_t i = 0; i < n; i++) {
        keys.push_back(prefix + std::to_string(i));
    }
    return keys;
}

} // namespace

CASE(tier_gives_what_was_put) {
    shared_tier of;
    CHECK(of.get({"atlas:a"}).empty());
    of.put("atlas:a", "one");
    CHECK(of.get({"atlas:a"}) == std::vector<std::string>{"one"});
    of.put("atlas:a", "two");
    CHECK(of.get({"atlas:a"}) == std::vector<std::string>{"two"});
    of.put("atlas:empty", "");
    CHECK(of.get({"atlas:empty"}) == std::vector<std::string>{""});
}

CASE(tier_says_who_it_is) {
    shared_tier  of;
    const auto & traits = of.tier->traits();
    CHECK(!traits.scheme.empty() && traits.n_at_once >= 1 && traits.max_value_bytes >= 256 << 20);
    CHECK(traits.address.compare(0, traits.scheme.size(), traits.scheme) == 0);
}

// What others wrote may say any size: no room is made for it.
CASE(tier_reads_no_value_beyond_its_limit) {
    shared_tier       of;
    const std::string large(3 << 20, 'a');
    of.put("atlas:small", "one");
    of.put("atlas:large", large);
    const auto got = [&] {
        try {
            return of.get({"atlas:small", "atlas:large"});
        } catch (const atlas::tier_error & error) {
            CHECK(error.kind == atlas::tier_failure::broken);
            return std::vector<std::string>{"one"};
        }
    };
    CHECK(got().size() == 2); // connections that are there already heed it, too
    of.tier->limit_values(large.size() - 1);
    CHECK(got() == std::vector<std::string>{"one"});
    of.tier->limit_values(large.size());
    CHECK(got().size() == 2 && got()[1] == large);
    of.tier->limit_values(UINT64_MAX);
    CHECK(got().size() == 2);
}

CASE(tier_probes_each_key) {
    shared_tier of;
    const auto  keys = keys_of(1200); // more than fit into one write
    CHECK(of.tier->probe({}, shared_tier::soon()).empty());
    for (size_t i = 0; i < keys.size(); i += 7) {
        of.put(keys[i], "x");
    }
    const auto found = of.tier->probe(keys, shared_tier::soon());
    CHECK(found.size() == keys.size());
    for (size_t i = 0; i < keys.size(); i++) {
        CHECK(found[i] == (i % 7 == 0));
    }
}

CASE(tier_gives_values_in_the_order_of_the_keys) {
    shared_tier of;
    const auto  keys = keys_of(40);
    for (size_t i = 0; i < keys.size(); i++) {
        of.put(keys[i], std::string(i % 3 == 0 ? 1 << 20 : 10, 'a') + std::to_string(i));
    }
    const auto values = of.get(keys);
    CHECK(values.size() == keys.size());
    for (size_t i = 0; i < keys.size(); i++) {
        CHECK(values[i] == std::string(i % 3 == 0 ? 1 << 20 : 10, 'a') + std::to_string(i));
    }
    CHECK(of.get({keys[7], keys[7], keys[3]}).size() == 3);
    CHECK(of.get({}).empty());
}

CASE(tier_ends_at_the_first_that_is_missing) {
    shared_tier of;
    const auto  keys = keys_of(30);
    for (size_t i = 0; i < keys.size(); i++) {
        if (i != 13) {
            of.put(keys[i], std::string(100000, 'v'));
        }
    }
    for (int again = 0; again < 3; again++) {
        CHECK(of.get(keys).size() == 13);
        CHECK(of.get({keys[29], keys[28]}).size() == 2); // what was asked for behind the end is in nobody's way
    }
}

CASE(tier_ends_where_it_is_told_to) {
    shared_tier of;
    const auto  keys = keys_of(20);
    for (const auto & key : keys) {
        of.put(key, std::string(300000, 'v'));
    }
    for (const size_t most : {1, 5, 20}) {
        CHECK(of.get(keys, most).size() == most);
    }
}

CASE(tier_keeps_large_values_whole) {
    shared_tier of;
    std::string large(32 << 20, '\0');
    for (size_t i = 0; i < large.size(); i++) {
        large[i] = (char) (i * 2654435761u >> 24);
    }
    for (const auto & key : keys_of(6)) {
        of.put(key, large);
    }
    size_t n = 0;
    of.tier->get(keys_of(6), shared_tier::soon(), [&](size_t, atlas::tier_value value) {
        CHECK(value.bytes == large);
        n++;
        return true;
    });
    CHECK(n == 6);
    const auto counts = of.tier->counts();
    CHECK(counts.reads == 6 && counts.writes == 6);
    CHECK(counts.read_bytes == 6 * large.size() && counts.written_bytes == 6 * large.size());
    CHECK(counts.read_s > 0 && counts.write_s > 0);
}

CASE(tier_writes_pieces_as_one_value) {
    shared_tier                   of;
    std::string                   expected;
    std::vector<std::string>      texts;
    std::vector<std::string_view> pieces;
    for (int i = 0; i < 300; i++) {
        texts.push_back(std::string((size_t) i * i % 7000, (char) i));
        expected += texts.back();
    }
    pieces.assign(texts.begin(), texts.end());
    of.tier->put("atlas:pieces", pieces, 600s, shared_tier::soon());
    CHECK(of.get({"atlas:pieces"}) == std::vector<std::string>{expected});
    of.tier->put("atlas:none", {}, 600s, shared_tier::soon());
    CHECK(of.get({"atlas:none"}) == std::vector<std::string>{""});
}

CASE(tier_takes_any_bytes) {
    shared_tier of;
    std::string all;
    for (int i = 0; i < 256; i++) {
        all += (char) i;
    }
    for (size_t i = 0; i < all.size(); i += 64) { // names of files have 255 bytes at most
        const std::string key = "atlas:" + all.substr(i, 64);
        of.put(key, "\r\n$3\r\n" + key + all);
        CHECK(of.get({key}) == std::vector<std::string>{"\r\n$3\r\n" + key + all});
        CHECK(of.has(key) && !of.has("atlas:"));
    }
    of.put("atlas:a/../b", "dots");
    of.put("atlas::_3A", "escape");
    CHECK(of.get({"atlas:a/../b", "atlas::_3A"}) == (std::vector<std::string>{"dots", "escape"}));
    CHECK(!of.has("atlas:b") && !of.has("atlas:::"));
}

CASE(tier_removes) {
    shared_tier of;
    const auto  keys = keys_of(5);
    for (const auto & key : keys) {
        of.put(key, "x");
    }
    of.tier->remove({keys[1], keys[3], "atlas:never"}, shared_tier::soon());
    of.tier->remove({}, shared_tier::soon());
    CHECK(of.tier->probe(keys, shared_tier::soon()) == (std::vector<bool>{true, false, true, false, true}));
}

CASE(tier_keeps_for_as_long_as_told) {
    shared_tier of;
    if (!of.tier->traits().expires) {
        return;
    }
    of.put("atlas:short", "x", 1s);
    of.put("atlas:kept", "x", 1s);
    CHECK(of.tier->keep({"atlas:kept", "atlas:never"}, 600s, shared_tier::soon()) == (std::vector<bool>{true, false}));
    CHECK(of.tier->keep({}, 600s, shared_tier::soon()).empty());
    cases::wait_until([&] { return !of.has("atlas:short"); });
    CHECK(of.get({"atlas:short"}).empty());
    CHECK(of.has("atlas:kept"));
}

CASE(tier_pings) {
    shared_tier of;
    CHECK(of.tier->counts().round_trip_s == 0);
    of.tier->ping(shared_tier::soon());
    CHECK(of.tier->counts().round_trip_s > 0);
}

CASE(tier_serves_threads) {
    shared_tier              of;
    const auto               keys = keys_of(16);
    std::atomic<size_t>      n_read{0};
    std::vector<std::thread> threads;
    for (const auto & key : keys) {
        of.put(key, std::string(200000, 'v'));
    }
    for (int t = 0; t < 6; t++) {
        threads.emplace_back([&] {
            for (int i = 0; i < 10; i++) {
                CHECK(of.tier->probe(keys, shared_tier::soon()) == std::vector<bool>(keys.size(), true));
                n_read += of.get(keys, i % 3 == 0 ? 4 : SIZE_MAX).size();
                of.tier->ping(shared_tier::soon());
            }
        });
    }
    for (int i = 0; i < 20; i++) {
        of.put("atlas:other", std::string(1 << 20, 'w'));
    }
    for (auto & thread : threads) {
        thread.join();
    }
    CHECK(n_read == 6 * (4 * 4 + 6 * keys.size()));
}

int main(int argc, char ** argv) {
    if (argc == 3 && std::strcmp(argv[1], "--drive") == 0) {
        return drive_tier(argv[2]);
    }
    return cases::run(argc, argv);
}
