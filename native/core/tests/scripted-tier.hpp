// A tier in RAM that does what a test says: it is late, fails, lies and forgets.
#pragma once

#include "atlas-tier.hpp"

#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace memory_test {

using namespace atlas;

class scripted_tier : public tier {
  public:
    explicit scripted_tier(bool is_probed = true) {
        about.scheme    = "scripted";
        about.address   = "scripted://here";
        about.is_probed = is_probed;
    }

    const tier_traits & traits() const override { return about; }

    std::vector<bool> probe(const std::vector<std::string> & keys, tier_deadline until) override {
        enter("probe", fails_reading, until);
        const std::lock_guard<std::mutex> held(mutex);
        most_probed = std::max(most_probed, keys.size());
        std::vector<bool> has;
        for (const auto & key : keys) {
            has.push_back(values.count(key) > 0);
        }
        if (forgets_after_probe) {
            values.clear();
        }
        return has;
    }

    void get(const std::vector<std::string> & keys, tier_deadline until,
             const std::function<bool(size_t, tier_value)> & take) override {
        for (size_t i = 0; i < keys.size(); i++) {
            enter("get", fails_reading, until);
            std::shared_ptr<std::string> value;
            {
                const std::lock_guard<std::mutex> held(mutex);
                got.push_back(keys[i]);
                if (values.count(keys[i]) == 0) {
                    return;
                }
                value = std::make_shared<std::string>(values[keys[i]]);
            }
            if (!take(i, {value, *value})) {
                return;
            }
        }
    }

    void put(const std::string & key, const std::vector<std::string_view> & pieces, std::chrono::seconds ttl,
             tier_deadline until) override {
        enter("put", fails_writing, until);
        const std::lock_guard<std::mutex> held(mutex);
        std::string                       value;
        for (const auto piece : pieces) {
            value.append(piece);
        }
        values[key] = value;
        last_ttl    = ttl;
        written.push_back(key);
    }

    std::vector<bool> keep(const std::vector<std::string> & keys, std::chrono::seconds, tier_deadline until) override {
        enter("keep", fails_writing, until);
        const std::lock_guard<std::mutex> held(mutex);
        std::vector<bool>                 has;
        for (const auto & key : keys) {
            has.push_back(values.count(key) > 0);
            kept.push_back(key);
        }
        return has;
    }

    void remove(const std::vector<std::string> & keys, tier_deadline until) override {
        enter("remove", fails_writing, until);
        const std::lock_guard<std::mutex> held(mutex);
        for (const auto & key : keys) {
            values.erase(key);
            removed.push_back(key);
        }
    }

    void ping(tier_deadline until) override { enter("ping", fails_reading, until); }

    tier_counts counts() const override {
        tier_counts now;
        now.round_trip_s = usual_s;
        return now;
    }

    void limit_values(uint64_t max_bytes) override { limit = max_bytes; }

    // What is to happen; any thread.
    tier_traits       about;
    std::atomic<int>  fails_reading{-1}, fails_writing{-1}; // a tier_failure; -1: it works
    std::atomic<bool> forgets_after_probe{false};

    std::atomic<uint64_t> limit{0};
    std::atomic<double>   usual_s{0}; // what it says of its answers

    // Holds all calls of that name up until resume().
    void hold_up(const std::string & call) {
        const std::lock_guard<std::mutex> held(mutex);
        held_up = call;
    }
    void resume() {
        hold_up("");
        changed.notify_all();
    }

    size_t calls(const std::string & call) {
        const std::lock_guard<std::mutex> held(mutex);
        return n_calls[call];
    }
    template <typename F> auto look(F at) {
        const std::lock_guard<std::mutex> held(mutex);
        return at(*this);
    }

    std::map<std::string, std::string> values;
    std::vector<std::string>           written, got, kept, removed; // keys, in order
    std::chrono::seconds               last_ttl{0};
    size_t                             most_probed = 0;

  private:
    std::mutex                    mutex;
    std::condition_variable       changed;
    std::string                   held_up;
    std::map<std::string, size_t> n_calls;

    void enter(const std::string & call, const std::atomic<int> & fails, tier_deadline until) {
        std::unique_lock<std::mutex> held(mutex);
        n_calls[call]++;
        if (!changed.wait_until(held, until, [&] { return held_up != call; })) {
            throw tier_error(tier_failure::late, "scripted://here: too late");
        }
        if (fails >= 0) {
            throw tier_error((tier_failure) fails.load(), "scripted://here: it does not work");
        }
    }
};

} // namespace memory_test
