#include "atlas-page-guard.hpp"
#include "cases.hpp"

#include <map>
#include <string>
#include <utility>
#include <vector>

using atlas::page_guard;
using atlas::page_policy;
using headers = std::map<std::string, std::string>;

static std::string refusal(const page_policy & policy, const headers & sent, const std::string & method = "POST",
                           bool is_atlas = false) {
    return page_guard(policy).refusal(method, is_atlas, [&](const char * name) {
        const auto found = sent.find(name);
        return found == sent.end() ? "" : found->second;
    });
}

static bool passes(const page_policy & policy, const headers & sent, const std::string & method = "POST") {
    return refusal(policy, sent, method).empty();
}

static page_policy with_memory(std::vector<std::string> origins = {"localhost"}) {
    page_policy policy;
    policy.guards_all = true;
    policy.origins    = std::move(origins);
    return policy;
}

static page_policy on_loopback(std::vector<std::string> hosts = {}) {
    page_policy policy = with_memory();
    policy.checks_host = true;
    policy.hosts       = std::move(hosts);
    return policy;
}

CASE(pages_of_other_origins_are_refused) {
    const auto policy = with_memory();
    CHECK(passes(policy, {}));
    CHECK(passes(policy, {{"Host", "llm.example:8080"}}));
    for (const char * origin : {"https://elsewhere.example", "null", "http://localhost.elsewhere.example",
                                "http://127.0.0.1.elsewhere.example", "http://elsewhere.example:8080",
                                "http://sub.llm.example:8080", "http://llm.example", "chrome-extension://abc"}) {
        CHECK(!passes(policy, {{"Host", "llm.example:8080"}, {"Origin", origin}}));
    }
    for (const char * origin :
         {"http://localhost:3000", "http://127.0.0.1", "http://127.0.0.1:8080", "http://[::1]:3000",
          "https://localhost", "http://app.localhost:1", "http://llm.example:8080", "HTTP://LLM.example:8080"}) {
        CHECK(passes(policy, {{"Host", "llm.example:8080"}, {"Origin", origin}}));
    }
    const std::string why = refusal(policy, {{"Origin", "https://elsewhere.example"}});
    CHECK(why.find("--cors-origins https://elsewhere.example") != std::string::npos);
    CHECK(why.find("LLAMA_ARG_CORS_ORIGINS") != std::string::npos);
}

CASE(what_the_browser_says_of_a_page_counts) {
    const auto policy = with_memory();
    CHECK(!passes(policy, {{"Sec-Fetch-Site", "cross-site"}}));
    CHECK(!passes(policy, {{"Sec-Fetch-Site", "cross-site"}}, "GET"));
    // the page is of another port or scheme, so that Origin looks the same
    CHECK(!passes(policy,
                  {{"Host", "llm.example"}, {"Origin", "https://llm.example"}, {"Sec-Fetch-Site", "cross-site"}}));
    CHECK(!passes(policy,
                  {{"Host", "llm.example"}, {"Origin", "https://a.llm.example"}, {"Sec-Fetch-Site", "same-site"}}));
    // a proxy put its own name for the server into Host
    CHECK(passes(policy,
                 {{"Host", "10.0.0.7:8080"}, {"Origin", "https://llm.example"}, {"Sec-Fetch-Site", "same-origin"}}));
    CHECK(passes(policy, {{"Origin", "http://127.0.0.1:3000"}, {"Sec-Fetch-Site", "cross-site"}}));
    for (const char * site : {"none", "same-origin", "same-site"}) {
        CHECK(passes(policy, {{"Sec-Fetch-Site", site}}, "GET"));
    }
}

CASE(links_lead_here_and_frames_do_not) {
    const auto    policy = with_memory();
    const headers link   = {
        {"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Mode", "navigate"}, {"Sec-Fetch-Dest", "document"}};
    CHECK(passes(policy, link, "GET"));
    CHECK(!passes(policy, link, "POST"));
    for (const char * place : {"iframe", "object", "image", ""}) {
        headers other           = link;
        other["Sec-Fetch-Dest"] = place;
        CHECK(!passes(policy, other, "GET"));
    }
}

CASE(preflights_that_name_no_session_are_left_to_cors) {
    const auto policy = with_memory();
    headers    sent   = {{"Origin", "https://elsewhere.example"}, {"Access-Control-Request-Headers", "content-type"}};
    CHECK(refusal(policy, sent, "OPTIONS", false).empty());
    CHECK(!refusal(policy, sent, "OPTIONS", true).empty());
    sent["Access-Control-Request-Headers"] = "content-type,X-Conversation-Id";
    CHECK(!refusal(policy, sent, "OPTIONS", false).empty());
    sent["Origin"] = "http://localhost:3000";
    CHECK(refusal(policy, sent, "OPTIONS", false).empty());
}

CASE(origins_that_are_named_are_allowed) {
    const auto policy = with_memory({"https://Chat.example/", "null"});
    CHECK(passes(policy, {{"Origin", "https://chat.example"}, {"Sec-Fetch-Site", "cross-site"}}));
    CHECK(passes(policy, {{"Origin", "null"}}));
    CHECK(!passes(policy, {{"Origin", "http://chat.example"}}));
    CHECK(!passes(policy, {{"Origin", "https://chat.example:8443"}}));
    CHECK(!passes(policy, {{"Origin", "http://localhost:3000"}})); // is not among them
    const auto all = with_memory({"*"});
    CHECK(passes(all, {{"Origin", "https://elsewhere.example"}, {"Sec-Fetch-Site", "cross-site"}}));
    CHECK(passes(all, {{"Sec-Fetch-Site", "cross-site"}}));
}

CASE(without_a_memory_only_our_own_routes_are_guarded) {
    page_policy policy = on_loopback();
    policy.guards_all  = false;
    for (const headers & sent :
         {headers{{"Origin", "https://elsewhere.example"}}, headers{{"Host", "elsewhere.example"}}}) {
        CHECK(refusal(policy, sent, "POST", false).empty());
        CHECK(!refusal(policy, sent, "POST", true).empty());
    }
}

CASE(names_of_the_host_are_known_or_refused) {
    const auto policy = on_loopback({"llm.example", "Box"});
    for (const char * host : {"", "localhost", "LOCALHOST:1", "localhost.:8080", "127.0.0.1", "127.0.0.1:8080",
                              "127.8.9.1", "[::1]", "[::1]:8080", "app.localhost:8080", "192.168.1.7:8080",
                              "[fe80::1]:8080", "llm.example", "LLM.example:8080", "box:80"}) {
        CHECK(passes(policy, {{"Host", host}}));
    }
    for (const char * host : {"elsewhere.example", "elsewhere.example:8080", "localhost.elsewhere.example",
                              "notlocalhost", "127.0.0.1.elsewhere.example:8080", "llm.example.elsewhere.example",
                              "sub.llm.example", "127.1", "[", "[::1", "user@localhost:8080", "2130706433"}) {
        CHECK(!passes(policy, {{"Host", host}}));
        // a page that is loaded from the address under such a name is of the same origin
        CHECK(!passes(policy,
                      {{"Host", host}, {"Origin", "http://" + std::string(host)}, {"Sec-Fetch-Site", "same-origin"}}));
    }
    CHECK(refusal(policy, {{"Host", "elsewhere.example:8080"}}).find("--atlas-allowed-hosts") != std::string::npos);
    CHECK(passes(on_loopback({"*"}), {{"Host", "elsewhere.example"}}));
    CHECK(passes(with_memory(), {{"Host", "elsewhere.example"}}));
}

CASE(what_a_client_sent_is_shown_cut_and_plain) {
    const std::string why = refusal(with_memory(), {{"Origin", "http://\x1b[2J\xff" + std::string(100000, 'a')}});
    CHECK(why.size() < 1000);
    CHECK(why.find("http://?[2j?aaa") != std::string::npos);
}
