#include "plugin-tier.hpp"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <optional>
#include <utility>

namespace atlas {

using result = hook_answer::result;

static tier_traits traits_of(int number) {
    tier_traits about;
    about.scheme    = "plugin";
    about.address   = "the tier that a plugin has for layer " + std::to_string(number);
    about.n_at_once = 2 * plugin_tier::BATCH; // they are there twice while they are copied from Python
    return about;
}

static std::string name_of(const hook_implementation & tier) {
    return "plugin '" + tier.plugin + "', tier '" + tier.tier + "'";
}

static tier_error broken(const hook_implementation & by, const std::string & why) {
    return {tier_failure::broken, name_of(by) + ": " + why};
}

// Why there is no answer.
static tier_error error_of(const hook_implementation & by, const hook_answer & answer) {
    switch (answer.how) {
        case result::failed: return broken(by, answer.response.body.empty() ? "it failed" : answer.response.body);
        case result::late:   return {tier_failure::late, name_of(by) + " did not answer in time"};
        case result::unserved:
            return {tier_failure::late, name_of(by) + " was not asked in time: Python was busy, or its lock was held"};
        case result::off:
            return {tier_failure::unreachable, name_of(by) + " missed too many deadlines and is off: POST " +
                                                   "/v1/atlas/plugins/" + by.plugin + "/enable turns it on again"};
        default: return {tier_failure::unreachable, name_of(by) + ": the server is shutting down"};
    }
}

plugin_tier::plugin_tier(hook_calls & calls, int number) : calls(calls), number(number), about(traits_of(number)) {}

// Asks about n of the keys.
http_response plugin_tier::ask(const char * what, const names & keys, size_t first, size_t n,
                               const std::vector<std::string_view> & payload, std::chrono::seconds ttl,
                               tier_deadline until) {
    const auto   table = calls.table();
    const auto & all   = table->of(hook::tier);
    const auto   by = std::find_if(all.begin(), all.end(), [&](const auto & one) { return one.tier_number == number; });
    if (by == all.end()) {
        throw tier_error(tier_failure::unreachable, "no plugin has a tier for layer " + std::to_string(number));
    }
    std::string names;
    for (size_t i = first; i < first + n; i++) {
        names += (i > first ? "\n" : "") + keys[i];
    }
    // names are of letters that JSON needs not escape
    auto head   = std::string(R"({"do":")") + what + R"(","ttl_s":)" + std::to_string(ttl.count()) + "}";
    auto answer = calls.ask_one(table, hook::tier, (size_t) (by - all.begin()),
                                std::make_shared<const std::string>(std::move(head)),
                                std::make_shared<const std::string>(std::move(names)), payload, until);
    note_time(what, answer, *by->tally);
    if (answer.how != result::answered) {
        throw error_of(*by, answer);
    }
    note_held(answer.response);
    return std::move(answer.response);
}

// Only what was late shows by answering in time that it works again: a tier that answers probes and hangs in put() is to be
// turned off.
void plugin_tier::note_time(const char * what, const hook_answer & answer, hook_tally & tally) {
    const std::lock_guard<std::mutex> held(mutex);
    if (answer.how == result::late) {
        missed = what;
    } else if (missed == what && (answer.how == result::answered || answer.how == result::failed)) {
        missed.clear();
        tally.keep();
    }
}

// What the plugin said it has, with any answer.
void plugin_tier::note_held(const http_response & answer) {
    const auto number_of = [&](const char * name) -> std::optional<uint64_t> {
        for (const auto & [key, value] : answer.headers) {
            uint64_t   number = 0;
            const auto end    = value.data() + value.size();
            if (key == name && std::from_chars(value.data(), end, number).ptr == end && !value.empty()) {
                return number;
            }
        }
        return std::nullopt;
    };
    if (!answer.headers.empty()) {
        const std::lock_guard<std::mutex> held(mutex);
        counted.held_entries = number_of("entries");
        counted.held_bytes   = number_of("bytes");
    }
}

std::vector<bool> plugin_tier::ask_which(const char * what, const names & keys, std::chrono::seconds ttl,
                                         tier_deadline until) {
    std::vector<bool> all;
    for (size_t first = 0; first < keys.size(); first += MAX_KEYS) {
        const size_t n      = std::min(MAX_KEYS, keys.size() - first);
        const auto   answer = ask(what, keys, first, n, {}, ttl, until);
        if (answer.body.size() != n || answer.body.find_first_not_of("01") != std::string::npos) {
            throw tier_error(tier_failure::broken, about.address + " does not say of each key whether it is there");
        }
        std::transform(answer.body.begin(), answer.body.end(), std::back_inserter(all),
                       [](char is_there) { return is_there == '1'; });
    }
    return all;
}

std::vector<bool> plugin_tier::probe(const names & keys, tier_deadline until) {
    const auto                          asked = tier_clock::now();
    auto                                has   = ask_which("probe", keys, {}, until);
    const std::chrono::duration<double> took  = tier_clock::now() - asked;
    const std::lock_guard<std::mutex>   held(mutex);
    counted.round_trip_s = took.count();
    return has;
}

// A value in an answer: its size in 8 bytes, the least first, and its bytes.
static std::optional<std::string_view> next_value(std::string_view & rest) {
    constexpr size_t SIZE  = 8;
    uint64_t         bytes = 0;
    for (size_t i = 0; i < SIZE && i < rest.size(); i++) {
        bytes |= (uint64_t) (uint8_t) rest[i] << (8 * i);
    }
    if (rest.size() < SIZE || bytes > rest.size() - SIZE) {
        return std::nullopt;
    }
    const auto value = rest.substr(SIZE, bytes);
    rest.remove_prefix(SIZE + bytes);
    return value;
}

void plugin_tier::get(const names & keys, tier_deadline until,
                      const std::function<bool(size_t index, tier_value value)> & take) {
    for (size_t first = 0; first < keys.size(); first += BATCH) {
        const size_t     n     = std::min(BATCH, keys.size() - first);
        const auto       asked = tier_clock::now();
        const auto       body  = std::make_shared<const std::string>(ask("get", keys, first, n, {}, {}, until).body);
        const double     took  = std::chrono::duration<double>(tier_clock::now() - asked).count();
        std::string_view rest  = *body;
        for (size_t i = 0; i < n; i++) {
            if (rest.empty()) {
                return; // the first that is missing
            }
            const auto value = next_value(rest);
            if (!value) {
                throw tier_error(tier_failure::broken, about.address + " answers with something that is no values");
            }
            {
                const std::lock_guard<std::mutex> held(mutex);
                counted.reads++;
                counted.read_bytes += value->size();
                counted.read_s += took / (double) n;
            }
            if (!take(first + i, {body, *value})) {
                return;
            }
        }
    }
}

void plugin_tier::put(const std::string & key, const std::vector<std::string_view> & pieces, std::chrono::seconds ttl,
                      tier_deadline until) {
    uint64_t bytes = 0;
    for (const auto piece : pieces) {
        bytes += piece.size();
    }
    if (bytes > about.max_value_bytes) {
        throw tier_error(tier_failure::full, about.address + " takes no value of " + std::to_string(bytes) + " bytes");
    }
    const auto asked = tier_clock::now();
    ask("put", {key}, 0, 1, pieces, ttl, until);
    const std::lock_guard<std::mutex> held(mutex);
    counted.writes++;
    counted.written_bytes += bytes;
    counted.write_s += std::chrono::duration<double>(tier_clock::now() - asked).count();
}

std::vector<bool> plugin_tier::keep(const names & keys, std::chrono::seconds ttl, tier_deadline until) {
    return ask_which("keep", keys, ttl, until);
}

void plugin_tier::remove(const names & keys, tier_deadline until) {
    for (size_t first = 0; first < keys.size(); first += MAX_KEYS) {
        ask("remove", keys, first, std::min(MAX_KEYS, keys.size() - first), {}, {}, until);
    }
}

void plugin_tier::ping(tier_deadline until) { probe({"ping"}, until); }

tier_counts plugin_tier::counts() const {
    const std::lock_guard<std::mutex> held(mutex);
    return counted;
}

} // namespace atlas
