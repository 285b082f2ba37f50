// What every tier does with records, as tier-test.cpp.
#include "atlas-record-tier.hpp"
#include "cases.hpp"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

using namespace std::chrono_literals;

namespace {

atlas::tier_deadline soon() { return atlas::tier_clock::now() + 30s; }

struct shared_records_tier {
    std::unique_ptr<atlas::record_tier> tier = atlas::make_record_tier(std::getenv("ATLAS_TEST_TIER"), 1 << 20);

    bool create(const std::string & key, const std::string & value) { return tier->create(key, value, soon()); }

    std::string get(const std::string & key) {
        std::string found = "(none)";
        tier->get({key}, soon(), [&](size_t, const atlas::tier_value & value) {
            found = value.bytes;
            return true;
        });
        return found;
    }
};

std::string name_of(size_t number) {
    const std::string digits = std::to_string(number);
    return std::string(64 - digits.size(), number % 2 == 0 ? 'a' : '0') + digits;
}

} // namespace

CASE(tier_records_are_the_first_writers) {
    shared_records_tier of;
    const auto          key = atlas::record_key(name_of(1), "turn.0");
    CHECK(of.get(key) == "(none)");
    CHECK(of.create(key, "first") && !of.create(key, "second"));
    CHECK(of.get(key) == "first");
    of.tier->replace(key, "third", soon());
    CHECK(of.get(key) == "third");
    of.tier->remove({key}, soon());
    CHECK(of.get(key) == "(none)" && of.create(key, ""));
    CHECK(of.get(key).empty());
}

CASE(tier_records_have_one_writer_of_many) {
    shared_records_tier      of;
    constexpr int            N_THREADS = 4, N_KEYS = 12;
    std::atomic<int>         n_created{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < N_THREADS; i++) {
        threads.emplace_back([&, i] {
            for (int n = 0; n < N_KEYS; n++) {
                n_created += of.create(atlas::record_key(name_of(2), "turn." + std::to_string(n)), std::to_string(i));
            }
        });
    }
    for (auto & each : threads) {
        each.join();
    }
    CHECK(n_created == N_KEYS);
}

CASE(tier_records_are_bounded) {
    shared_records_tier of;
    const auto          key        = atlas::record_key(name_of(3), "turn.0");
    bool                is_refused = false;
    try {
        of.create(key, std::string((1 << 20) + 1, 'x'));
    } catch (const atlas::tier_error & error) {
        is_refused = error.kind == atlas::tier_failure::full;
    }
    CHECK(is_refused || of.get(key) == "(none)"); // a directory takes it, and does not read it
}

CASE(tier_keeps_a_set_of_names) {
    shared_records_tier of;
    const auto &        set = atlas::NAMES_OF_SESSIONS;
    CHECK(of.tier->names(set, "", 10, soon()).empty());
    std::vector<std::string> all;
    for (size_t i = 0; i < 24; i++) {
        all.push_back(name_of(i));
        of.tier->add_name(set, all.back(), soon());
    }
    of.tier->add_name(set, all.front(), soon());
    std::sort(all.begin(), all.end());
    std::vector<std::string> found;
    for (;;) {
        const auto page = of.tier->names(set, found.empty() ? "" : found.back(), 7, soon());
        found.insert(found.end(), page.begin(), page.end());
        if (page.size() < 7) {
            break;
        }
    }
    CHECK(found == all);
    of.tier->remove_name(set, all[0], soon());
    of.tier->remove_name(set, all[0], soon());
    CHECK(of.tier->names(set, "", 1, soon()) == std::vector<std::string>{all[1]});
}
