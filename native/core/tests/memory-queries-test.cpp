// What Python may say of sessions, and what it may not.
#include "memory-queries.hpp"

#include "atlas-abi.h"
#include "memory-test.hpp"

using namespace memory_test;

CASE(queries_with_bad_arguments_change_nothing) {
    memory_store      store(options(""));
    const std::string key = put_all(store, some_tokens(1, BLOCK))[0];
    const auto query   = [&](int32_t what, const std::string & text) { return answer_memory_query(store, what, text); };
    const auto restore = [&](const std::string & tokens, const std::string & last_used, const std::string & chain,
                             const std::string & pinned = "true") {
        return query(ATLAS_QUERY_SESSION_EDIT, R"({"action": "restore", "session_id": "ada", "tokens": )" + tokens +
                                                   R"(, "last_used": )" + last_used + R"(, "chain": )" + chain +
                                                   R"(, "pinned": )" + pinned + "}");
    };
    for (const char * const bad :
         {"1e300", "-1", "1.5", "18446744073709551616", "\"16\"", "null", "true", "NaN", "[16]"}) {
        CHECK(!restore(bad, "1.5", "[]"));
        CHECK(!query(ATLAS_QUERY_SESSIONS, R"({"since": )" + std::string(bad) + "}"));
    }
    for (const char * const bad : {"-1", "1e300", "1e999", "NaN", "Infinity", "\"1\"", "null", "true"}) {
        CHECK(!restore("16", bad, "[]"));
    }
    for (const char * const bad : {"{}", "null", "[1]",
                                   "\""
                                   "0"
                                   "\"",
                                   "[null]"}) {
        CHECK(!restore("16", "1", bad));
        CHECK(!query(ATLAS_QUERY_SESSIONS, R"({"ids": )" + std::string(bad) + "}") || std::string(bad) == "{}");
    }
    CHECK(!restore("16", "1", "[]", "1") && !restore("16", "1", "[]", "\"yes\""));
    for (const char * const bad : {"", "[]", "1", "{", "{}", R"({"action": "pin"})", R"({"session_id": "ada"})",
                                   R"({"action": "burn", "session_id": "ada"})", R"({"action": 1, "session_id": "a"})",
                                   R"({"action": "pin", "session_id": 7})"}) {
        CHECK(!query(ATLAS_QUERY_SESSION_EDIT, bad));
    }
    const int64_t tiers[] = {3, 0, -1, INT64_MAX};
    for (const int64_t tier : tiers) {
        CHECK(!query(ATLAS_QUERY_MEMORY_ORDER, std::string(reinterpret_cast<const char *>(&tier), sizeof(tier))));
    }
    CHECK(!query(ATLAS_QUERY_MEMORY_ORDER, "") && !query(ATLAS_QUERY_MEMORY_ORDER, "1234567"));
    CHECK(!query(99, "{}"));
    CHECK(store.stats().sessions == 0);

    CHECK(restore("18446744073709551615", "1e12", "[\"" + key + "\", \"no key\"]"));
    CHECK(store.find_sessions({"ada"})[0].chain == std::vector<std::string>{key});
    CHECK(query(ATLAS_QUERY_SESSIONS, R"({"since": 18446744073709551615})") ==
          R"({"sessions":[],"version":18446744073709551615})");
    CHECK(query(ATLAS_QUERY_SESSIONS, R"({"since": 0})")->find(R"("pinned_bytes":)") != std::string::npos);
    CHECK(query(ATLAS_QUERY_SESSION_EDIT, R"({"action": "forget", "session_id": "ada"})") ==
          R"({"bytes":1064,"found":true})");
}
