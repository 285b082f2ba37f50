#include "atlas-call-limits.hpp"
#include "atlas-error.hpp"
#include "cases.hpp"

#include <memory>
#include <optional>
#include <string>
#include <vector>

static int refused_with(atlas::call_limits & limits, const std::string & account,
                        const atlas::AtlasServerConfig & config) {
    try {
        limits.enter(account, config);
        return 0;
    } catch (const atlas::error & e) {
        CHECK(e.retry_after_s >= 1);
        return e.code;
    }
}

CASE(calls_in_progress_are_limited_for_each_key) {
    atlas::AtlasServerConfig config;
    config.max_calls_per_key = 2;

    auto                               limits = std::make_optional<atlas::call_limits>();
    std::vector<std::shared_ptr<void>> held   = {limits->enter("a", config), limits->enter("a", config)};
    CHECK(refused_with(*limits, "a", config) == 429);
    CHECK(refused_with(*limits, "b", config) == 0);
    CHECK(refused_with(*limits, "b", config) == 0); // the one before has ended
    held.pop_back();
    CHECK(refused_with(*limits, "a", config) == 0);
    config.max_calls_per_key = 1; // while it runs
    CHECK(refused_with(*limits, "a", config) == 429);
    limits.reset();
    held.clear(); // a stream may end after the server's parts
}

CASE(calls_a_second_are_limited_for_each_key) {
    atlas::AtlasServerConfig config;
    config.key_calls_per_s = 0.001;

    atlas::call_limits limits;
    CHECK(refused_with(limits, "a", config) == 0);
    CHECK(refused_with(limits, "a", config) == 429);
    CHECK(refused_with(limits, "b", config) == 0);
}
