#include "atlas-ended-requests.hpp"
#include "cases.hpp"

#include <nlohmann/json.hpp>

#include <string>

using json = nlohmann::json;

CASE(the_newest_requests_are_kept_and_told_in_pieces) {
    atlas::ended_requests ended;
    CHECK(json::parse(ended.since_json(0)) == json({{"last", 0}, {"requests", json::array()}}));
    for (int i = 1; i <= 1100; i++) {
        atlas::request_record record;
        record.request_id = std::to_string(i);
        CHECK(ended.add(std::move(record)) > 0);
    }
    const auto numbers = [&](uint64_t since) {
        const json answer = json::parse(ended.since_json(since));
        CHECK(answer.at("last") == 1100);
        std::vector<int> found;
        for (const auto & each : answer.at("requests")) {
            CHECK(each.at("request_id") == std::to_string(each.at("number").get<int>()));
            found.push_back(each.at("number"));
        }
        return found;
    };
    CHECK(numbers(0).size() == 256 && numbers(0).front() == 77);
    CHECK(numbers(76) == numbers(0));
    CHECK(numbers(332).front() == 333);
    CHECK(numbers(1098) == std::vector<int>({1099, 1100}));
    CHECK(numbers(1100).empty());
    CHECK(numbers(5000).empty());
}

CASE(what_is_not_known_of_a_request_is_null) {
    atlas::request_record record;
    record.ms.total  = 1.5;
    const json shown = json::parse(record.to_json());
    CHECK(shown.at("ms").at("total") == 1.5);
    CHECK(shown.at("ms").at("prefill").is_null());
}

CASE(only_well_formed_traceparents_are_taken) {
    const std::string good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    CHECK(atlas::is_traceparent(good));
    for (const char * bad : {
             "",
             "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
             "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
             "00-00000000000000000000000000000000-b7ad6b7169203331-01",
             "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
             "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
             "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
         }) {
        CHECK(!atlas::is_traceparent(bad));
    }
}
