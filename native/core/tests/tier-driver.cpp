#include "tier-driver.hpp"

#include "atlas-make-tier.hpp"

#include <nlohmann/json.hpp>

#include <iostream>
#include <sstream>

namespace {

using json = nlohmann::ordered_json;

// Depends on the key, so that a value of another is told from it.
std::string value_of(const std::string & key, size_t n_bytes) {
    std::string value;
    for (size_t i = 0; value.size() < n_bytes; i++) {
        value += key + std::to_string(i);
    }
    value.resize(n_bytes);
    return value;
}

// `began` is set anew where making a value takes time.
json act(atlas::tier & tier, const std::string & line, atlas::tier_deadline & began) {
    std::istringstream words(line);
    std::string        what;
    int64_t            ms = 0, ttl = 0;
    words >> what >> ms;
    if (what == "put" || what == "keep") {
        words >> ttl;
    }
    std::vector<std::string> keys;
    for (std::string key; words >> key;) {
        keys.push_back(key);
    }
    const std::string value = what == "put" ? value_of(keys.at(0), std::stoull(keys.at(1))) : "";
    began                   = atlas::tier_clock::now();
    const auto until        = began + std::chrono::milliseconds(ms);
    json       answer       = json::object();
    if (what == "probe") {
        answer["found"] = tier.probe(keys, until);
    } else if (what == "get") {
        answer = {{"sizes", json::array()}, {"wrong", 0}};
        try {
            tier.get(keys, until, [&](size_t index, atlas::tier_value value) {
                answer["sizes"].push_back(value.bytes.size());
                answer["wrong"] =
                    answer["wrong"].get<int>() + (value.bytes != value_of(keys[index], value.bytes.size()));
                return true;
            });
        } catch (const atlas::tier_error & error) {
            answer["failure"] = (int) error.kind;
            answer["text"]    = error.what();
        }
    } else if (what == "put") {
        tier.put(keys[0], {value}, std::chrono::seconds(ttl), until);
    } else if (what == "keep") {
        answer["found"] = tier.keep(keys, std::chrono::seconds(ttl), until);
    } else if (what == "remove") {
        tier.remove(keys, until);
    } else {
        tier.ping(until);
    }
    return answer;
}

} // namespace

int drive_tier(const char * url) {
    static const char * const    FAILURES[] = {"unreachable", "late", "denied", "full", "broken"};
    std::unique_ptr<atlas::tier> tier;
    try {
        tier = atlas::make_tier(url);
    } catch (const std::invalid_argument & error) {
        std::cout << error.what() << std::endl;
        return 2;
    }
    std::cout << tier->traits().address << std::endl;
    for (std::string line; std::getline(std::cin, line);) {
        auto began = atlas::tier_clock::now();
        json answer;
        try {
            answer = act(*tier, line, began);
        } catch (const atlas::tier_error & error) {
            answer = {{"failure", (int) error.kind}, {"text", error.what()}};
        }
        if (answer.contains("failure")) {
            answer["failure"] = FAILURES[answer["failure"].get<int>()];
        }
        answer["ms"] = std::chrono::duration<double, std::milli>(atlas::tier_clock::now() - began).count();
        std::cout << answer.dump(-1, ' ', false, json::error_handler_t::replace) << std::endl;
    }
    return 0;
}
