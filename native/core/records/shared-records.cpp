#include "atlas-shared-records.hpp"

#include "atlas-log.hpp"
#include "hash/hash.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <optional>
#include <random>
#include <utility>
#include <vector>

namespace atlas {

using json = nlohmann::json;

static constexpr size_t ENOUGH_BYTES = 32 << 20; // of values in one answer

// As Python has it: an object, and behind a line feed the value where one is to be stored.
struct shared_records::asked {
    json             head;
    std::string      what;
    std::string_view value;
    bool             is_patient; // whether it is no request that waits

    explicit asked(std::string_view argument) {
        const size_t end = argument.find('\n');
        head             = json::parse(argument.substr(0, end));
        what             = head.at("do").get<std::string>();
        value            = end == std::string_view::npos ? std::string_view() : argument.substr(end + 1);
        is_patient       = head.value("is_patient", false);
    }
};

static std::string text_of(const json & answer, std::string_view values = {}) {
    std::string text = answer.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
    text.append(values);
    return text;
}

static std::string text_of_failure(tier_failure kind, const std::string & problem) {
    static constexpr const char * KINDS[] = {"unreachable", "late", "denied", "full", "broken"};
    return text_of({{"failure", KINDS[(size_t) kind]}, {"problem", problem}});
}

std::string no_shared_records() { return text_of({{"is_on", false}}); }

// What is known by its own name begins with '#'.
std::string shared_records::owner_of(const std::string & text) const {
    if (!text.empty() && text[0] == '#') {
        std::string name = text.substr(1);
        if (!is_record_name(name)) {
            throw std::invalid_argument("'" + name + "' is no name of a record");
        }
        return name;
    }
    if (!seal) {
        return hash_sha256_hex(text.data(), text.size());
    }
    static const char DIGITS[] = "0123456789abcdef";
    std::string       name;
    for (const uint8_t byte : seal->name_of_record(text)) {
        name += {DIGITS[byte >> 4], DIGITS[byte & 15]};
    }
    return name;
}

std::string shared_records::key_of(const asked & what, size_t index) const {
    const json & key = what.head.at("keys").at(index);
    return record_key(owner_of(key.at(0).get<std::string>()), key.at(1).get<std::string>());
}

std::string shared_records::answer(std::string_view argument) {
    const asked what(argument);
    if (what.what == "state") {
        return state();
    }
    if (what.what == "name") {
        return text_of({{"name", owner_of(what.head.at("owner").get<std::string>())}});
    }
    if (!may_try(what.is_patient)) {
        const std::lock_guard<std::mutex> held(mutex);
        return text_of_failure(tier_failure::unreachable, breaker.state().problem());
    }
    const auto until = tier_clock::now() + std::chrono::microseconds((int64_t) (timeout_s * 1e6));
    try {
        std::string answer = perform(what, until);
        worked();
        return answer;
    } catch (const tier_error & error) {
        // A value that is too large is that record's fault alone.
        if (what.what != "get" || error.kind != tier_failure::broken) {
            failed(error);
        }
        return text_of_failure(error.kind, error.what());
    }
}

// Whether a value that is there stays: stores that heed no condition would have servers write over each other's records.
static void check_first_wins(record_tier & place, tier_deadline until) {
    std::random_device   random;
    std::string          owner;
    static constexpr int N_WORDS = 8;
    for (int i = 0; i < N_WORDS; i++) {
        char word[9];
        std::snprintf(word, sizeof(word), "%08x", (unsigned) random());
        owner += word;
    }
    const std::string key    = record_key(owner, "check");
    const bool        first  = place.create(key, "first", until);
    const bool        second = place.create(key, "second", until);
    place.remove({key}, until);
    if (!first || second) {
        throw tier_error(
            tier_failure::broken,
            place.traits().address +
                ": it writes over what is there though it is told not to (If-None-Match), so that sessions "
                "cannot be shared by it: use a version that heeds this");
    }
}

std::string shared_records::perform(const asked & what, tier_deadline until) {
    const bool is_name = what.what == "add_name" || what.what == "remove_name";
    if (what.what == "get") {
        return get(what, until);
    }
    if (what.what == "create" || what.what == "replace") {
        const std::string key = key_of(what, 0);
        std::string       sealed;
        if (seal) {
            sealed.resize(fleet_seal::wrapped_bytes({what.value}));
            seal->wrap(key, {what.value}, reinterpret_cast<uint8_t *>(sealed.data()));
        }
        const std::string_view stored = seal ? std::string_view(sealed) : what.value;
        if (what.what == "replace") {
            place->replace(key, stored, until);
            return text_of(json::object());
        }
        bool is_known = false;
        {
            const std::lock_guard<std::mutex> held(mutex);
            is_known = is_checked;
        }
        if (!is_known) {
            check_first_wins(*place, until);
            const std::lock_guard<std::mutex> held(mutex);
            is_checked = true;
        }
        return text_of({{"created", place->create(key, stored, until)}});
    }
    if (what.what == "remove") {
        std::vector<std::string> keys;
        for (size_t i = 0; i < what.head.at("keys").size(); i++) {
            keys.push_back(key_of(what, i));
        }
        place->remove(keys, until);
        return text_of(json::object());
    }
    if (is_name) {
        const std::string name = owner_of(what.head.at("owner").get<std::string>());
        what.what == "add_name" ? place->add_name(NAMES_OF_SESSIONS, name, until)
                                : place->remove_name(NAMES_OF_SESSIONS, name, until);
        return text_of({{"name", name}});
    }
    if (what.what == "names") {
        return text_of({{"names", place->names(NAMES_OF_SESSIONS, what.head.at("after").get<std::string>(),
                                               what.head.at("most").get<size_t>(), until)}});
    }
    if (what.what == "ping") {
        place->ping(until);
        return text_of(json::object());
    }
    throw std::invalid_argument("'" + what.what + "' is nothing to do with records");
}

// Up to the first that is not there, or with `all` those behind it, too; up to the first that is damaged; and as many as are
// enough for one answer.
std::string shared_records::get(const asked & what, tier_deadline until) {
    const bool               has_gaps = what.head.value("all", false);
    std::vector<std::string> keys;
    for (size_t i = 0; i < what.head.at("keys").size(); i++) {
        keys.push_back(key_of(what, i));
    }
    json        sizes   = json::array();
    json        damaged = nullptr;
    std::string values;
    bool        is_enough = false;
    const auto  take      = [&](size_t index, const tier_value & value) {
        if (!seal) {
            values.append(value.bytes);
            sizes.push_back(value.bytes.size());
        } else {
            const auto   n_plain = seal->plain_bytes(value.bytes);
            const size_t before  = values.size();
            values.resize(before + n_plain.value_or(0));
            if (!n_plain ||
                !seal->unwrap(keys[index], value.bytes, reinterpret_cast<uint8_t *>(values.data()) + before)) {
                values.resize(before);
                damaged = index;
                return false;
            }
            sizes.push_back(*n_plain);
        }
        is_enough = values.size() >= ENOUGH_BYTES;
        return !is_enough;
    };
    for (size_t begin = 0; begin < keys.size() && damaged.is_null() && !is_enough;) {
        place->get({keys.begin() + (std::ptrdiff_t) begin, keys.end()}, until,
                   [&](size_t index, tier_value value) { return take(begin + index, value); });
        begin = sizes.size();
        if (!has_gaps) {
            break;
        }
        if (begin < keys.size() && damaged.is_null() && !is_enough) {
            sizes.push_back(nullptr); // at which it ended
            begin++;
        }
    }
    return text_of({{"sizes", sizes}, {"damaged", damaged}, {"is_enough", is_enough}}, values);
}

std::string shared_records::state() const {
    const std::lock_guard<std::mutex> held(mutex);
    const std::string &               problem = breaker.state().problem();
    const double                      retry_s =
        std::max(0.0, std::chrono::duration<double>(breaker.state().retry_at() - tier_clock::now()).count());
    return text_of({{"is_on", true},
                    {"address", place->traits().address},
                    {"problem", problem.empty() ? json() : json(problem)},
                    {"retry_s", problem.empty() ? json() : json(retry_s)}});
}

bool shared_records::may_try(bool is_patient) const {
    const std::lock_guard<std::mutex> held(mutex);
    return !breaker.is_open() || (is_patient && breaker.is_to_be_tried());
}

void shared_records::worked() {
    bool was_open = false;
    {
        const std::lock_guard<std::mutex> held(mutex);
        was_open = breaker.is_open();
        breaker.worked();
    }
    if (was_open) {
        log(LogLevel::INFO, "sessions are shared again");
    }
}

void shared_records::failed(const tier_error & error) {
    bool is_new = false;
    {
        const std::lock_guard<std::mutex> held(mutex);
        const bool                        was_open = breaker.is_open();
        breaker.failed(error);
        is_new = !was_open && breaker.is_open();
    }
    if (is_new) {
        logf(LogLevel::WARN, "sessions are not shared now, and recorded here until they are again: %s", error.what());
    }
}

} // namespace atlas
