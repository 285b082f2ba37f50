// Tiers that plugins bring, as the memory uses them: what they answer wrongly, late or never.
#include "hook-test.hpp"
#include "plugin-tier.hpp"

#include <cstring>
#include <map>
#include <mutex>
#include <set>

using namespace hook_test;
using atlas::plugin_tier;
using atlas::tier_clock;
using atlas::tier_error;
using atlas::tier_failure;
using atlas::tier_value;

namespace {

constexpr int NUMBER = 4;

void set_tier(hook_calls & calls, std::chrono::milliseconds deadline, int tier_number = NUMBER, uint64_t number = 1) {
    atlas::hook_table table;
    table.number = number;
    atlas::hook_implementation added;
    added.plugin      = "kept";
    added.tier        = "files";
    added.tier_number = tier_number;
    added.deadline    = deadline;
    table.by_hook[static_cast<size_t>(hook::tier)].push_back(std::move(added));
    calls.set_table(std::move(table));
}

tier_clock::time_point soon() { return tier_clock::now() + LONG; }

// What a plugin does: by what is asked and the keys. A put reads its value by `read`.
using acting = std::function<verdict(const std::string & head, const std::string & keys,
                                     const std::function<bool(std::string &)> & read)>;

class plugin {
  public:
    plugin(hook_calls & calls, acting act) : calls(calls), act(std::move(act)) {
        maker = std::thread([this] {
            while (this->calls.worker_wanted(false)) {
                all.emplace_back([this] { work(); });
            }
        });
    }
    ~plugin() {
        calls.close();
        maker.join();
        for (auto & each : all) {
            each.join();
        }
    }

  private:
    void work() {
        atlas::hook_work work;
        for (uint64_t previous = 0; calls.take(previous, work); previous = work.number) {
            if (calls.step(work.number, hook_step::begin, {})) {
                auto [step, with] = act(std::string(work.head), std::string(work.body), [&](std::string & value) {
                    value.resize(work.payload);
                    return calls.read(work.number, &value[0], value.size());
                });
                calls.step(work.number, step, std::move(with));
            }
        }
    }

    hook_calls &             calls;
    const acting             act;
    std::thread              maker;
    std::vector<std::thread> all;
};

verdict saying_so(const std::string & body) { return {hook_step::respond, saying(body)}; }

std::string framed(const std::string & value) {
    std::string size(8, '\0');
    for (size_t i = 0; i < size.size(); i++) {
        size[i] = (char) (value.size() >> (8 * i));
    }
    return size + value;
}

template <typename F> tier_failure failing(F act, std::string * text = nullptr) {
    try {
        act();
    } catch (const tier_error & error) {
        if (text) {
            *text = error.what();
        }
        return error.kind;
    }
    CHECK(!"it did not fail");
    std::abort();
}

const auto take_all = [](size_t, const tier_value &) { return true; };

} // namespace

CASE(plugin_tier_moves_values) {
    std::mutex                         mutex;
    std::map<std::string, std::string> values;
    hook_calls                         calls;
    set_tier(calls, LONG);
    plugin            python(calls, [&](const auto & head, const auto & keys, const auto & read) {
        const std::lock_guard<std::mutex> held(mutex);
        std::string                       answer;
        if (head.find("\"put\"") != std::string::npos) {
            CHECK(head == R"({"do":"put","ttl_s":7})");
            CHECK(read(values[keys]));
        }
        for (size_t begin = 0; begin <= keys.size();) {
            const size_t end = std::min(keys.find('\n', begin), keys.size());
            const auto   key = keys.substr(begin, end - begin);
            begin            = end + 1;
            if (head.find("\"probe\"") != std::string::npos || head.find("\"keep\"") != std::string::npos) {
                answer += values.count(key) > 0 ? '1' : '0';
            } else if (head.find("\"get\"") != std::string::npos) {
                if (values.count(key) == 0) {
                    break;
                }
                answer += framed(values[key]);
            } else if (head.find("\"remove\"") != std::string::npos) {
                values.erase(key);
            }
        }
        auto said = saying_so(answer);
        said.with.headers.emplace_back("entries", std::to_string(values.size()));
        return said;
    });
    plugin_tier       tier(calls, NUMBER);
    const std::string large(3 << 20, 'x'); // copied in several steps
    tier.put("a", {"fir", "", "st"}, std::chrono::seconds(7), soon());
    tier.put("b", {large}, std::chrono::seconds(7), soon());
    tier.put("c", {}, std::chrono::seconds(7), soon());
    CHECK(tier.probe({"a", "x", "c"}, soon()) == std::vector<bool>({true, false, true}));
    std::vector<std::string> got;
    const auto               take = [&](size_t i, const tier_value & value) {
        CHECK(i == got.size());
        got.emplace_back(value.bytes);
        return true;
    };
    tier.get({"a", "b", "a", "a", "b", "c", "x", "a"}, soon(), take); // more than are asked for at once
    CHECK(got == std::vector<std::string>({"first", large, "first", "first", large, ""}));
    CHECK(tier.keep({"x", "b"}, std::chrono::seconds(7), soon()) == std::vector<bool>({false, true}));
    tier.remove({"a", "b"}, soon());
    CHECK(tier.probe({"a", "b", "c"}, soon()) == std::vector<bool>({false, false, true}));
    tier.ping(soon());
    const auto counts = tier.counts();
    CHECK(counts.writes == 3 && counts.written_bytes == 5 + large.size());
    CHECK(counts.reads == 6 && counts.read_bytes == 3 * 5 + 2 * large.size());
    CHECK(counts.held_entries == 1 && !counts.held_bytes && counts.round_trip_s > 0);
    const std::vector<std::string> many(plugin_tier::MAX_KEYS + 1, "c");
    CHECK(tier.probe(many, soon()) == std::vector<bool>(many.size(), true));
}

CASE(plugin_tier_that_answers_wrongly) {
    hook_calls  calls;
    std::string says;
    set_tier(calls, LONG);
    plugin      python(calls, [&](const auto &, const auto &, const auto &) {
        return says == "fail" ? verdict{hook_step::fail, saying("ValueError: why")} : saying_so(says);
    });
    plugin_tier tier(calls, NUMBER);
    const auto  probe = [&] { tier.probe({"a", "b"}, soon()); };
    const auto  get   = [&] { tier.get({"a", "b"}, soon(), take_all); };
    for (const char * wrong : {"1", "111", "1x", ""}) {
        says = wrong;
        CHECK(failing(probe) == tier_failure::broken);
    }
    for (const auto & wrong : {std::string("short"), std::string(8, '\xff'), framed("value").substr(0, 10)}) {
        says = wrong;
        CHECK(failing(get) == tier_failure::broken);
    }
    std::string text;
    says = "fail";
    CHECK(failing(probe, &text) == tier_failure::broken);
    CHECK(text == "plugin 'kept', tier 'files': ValueError: why");
    says = "";
    get(); // nothing is there
    plugin_tier other(calls, NUMBER + 1);
    CHECK(failing([&] { other.ping(soon()); }, &text) == tier_failure::unreachable);
    CHECK(text == "no plugin has a tier for layer 5");
}

CASE(plugin_tier_that_hangs_is_left_and_turned_off) {
    hook_calls calls;
    gate       end;
    set_tier(calls, SHORT);
    calls.set_limits({2, 1}); // misses in a row, workers
    std::atomic<int> n_read{0}, n_gone{0};
    plugin           python(calls, [&](const auto &, const auto &, const auto & read) {
        end.wait();
        std::string value;
        (read(value) ? n_read : n_gone)++;
        return saying_so("1");
    });
    plugin_tier      tier(calls, NUMBER);
    std::string      text;
    for (int i = 0; i < 2; i++) {
        // the value is gone once the call returned
        const auto value = std::make_unique<std::string>("value");
        CHECK(failing([&] { tier.put("a", {*value}, {}, soon()); }) == tier_failure::late);
    }
    CHECK(failing([&] { tier.probe({"a"}, soon()); }, &text) == tier_failure::unreachable);
    CHECK(text.find("is off: POST /v1/atlas/plugins/kept/enable") != std::string::npos);
    CHECK(tally_of(calls, "kept").timeouts == 2 && tally_of(calls, "kept").is_off);
    end.open();
    while (n_gone < 2) {
        std::this_thread::yield();
    }
    CHECK(n_read == 0);
    while (tally_of(calls, "kept").late < 2) {
        std::this_thread::yield();
    }
    CHECK(calls.turn_on("kept"));
    set_tier(calls, LONG, NUMBER, 2);
    CHECK(tier.probe({"a"}, soon()) == std::vector<bool>({true}));
}

CASE(plugin_tier_that_hangs_in_one_member_only_is_turned_off) {
    hook_calls       calls;
    gate             end;
    std::atomic<int> n_hanging{1000};
    set_tier(calls, SHORT);
    calls.set_limits({3, 1});
    plugin      python(calls, [&](const auto & head, const auto &, const auto &) {
        if (head.find("\"put\"") != std::string::npos && n_hanging-- > 0) {
            end.wait();
        }
        return saying_so("1");
    });
    plugin_tier tier(calls, NUMBER);
    const auto  put   = [&] { tier.put("a", {}, {}, soon()); };
    const auto  probe = [&] {
        try {
            tier.probe({"a"}, soon());
        } catch (const tier_error &) { // late on a busy machine
        }
    };
    for (int i = 0; i < 2; i++) {
        CHECK(failing(put) == tier_failure::late);
        probe();
    }
    while (!tally_of(calls, "kept").is_off) {
        CHECK(failing(put) == tier_failure::late);
        probe();
    }
    CHECK(failing(put) == tier_failure::unreachable);
    end.open();
}

CASE(plugin_tier_is_waited_for_no_longer_than_asked) {
    hook_calls calls;
    gate       end;
    set_tier(calls, LONG);
    plugin      python(calls, [&](const auto &, const auto &, const auto &) {
        end.wait();
        return saying_so("1");
    });
    plugin_tier tier(calls, NUMBER);
    CHECK(failing([&] { tier.probe({"a"}, tier_clock::now() + SHORT); }) == tier_failure::late);
    // it had far less than its own time, so that it is not to blame
    CHECK(tally_of(calls, "kept").timeouts == 0 && tally_of(calls, "kept").unserved == 1);
    end.open();
}

CASE(plugin_tier_that_nobody_serves) {
    hook_calls calls;
    set_tier(calls, SHORT);
    plugin_tier tier(calls, NUMBER);
    std::string text;
    CHECK(failing([&] { tier.probe({"a"}, soon()); }, &text) == tier_failure::late);
    CHECK(text.find("was not asked in time: Python was busy") != std::string::npos);
    CHECK(tally_of(calls, "kept").unserved == 1);
    calls.close();
    CHECK(failing([&] { tier.probe({"a"}, soon()); }) == tier_failure::unreachable);
}
