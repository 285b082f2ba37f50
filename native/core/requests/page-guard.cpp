#include "atlas-page-guard.hpp"

#include <arpa/inet.h>

#include <algorithm>
#include <utility>

namespace atlas {

static const size_t MAX_SHOWN = 200; // characters of what a client sent

static std::string lower(std::string text) {
    for (char & c : text) {
        c = c >= 'A' && c <= 'Z' ? (char) (c - 'A' + 'a') : c;
    }
    return text;
}

// A client's text for messages and the log: cut, and without characters that a terminal might obey.
static std::string shown(const std::string & text) {
    std::string plain = text.substr(0, MAX_SHOWN);
    std::replace_if(plain.begin(), plain.end(), [](unsigned char c) { return c < ' ' || c > '~'; }, '?');
    return plain;
}

static bool ends_with(const std::string & text, const std::string & end) {
    return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

static bool contains(const std::vector<std::string> & list, const std::string & text) {
    return std::find(list.begin(), list.end(), text) != list.end();
}

// The name or address in "NAME:PORT" or "[ADDRESS]:PORT", whose port may be missing.
static std::string name_in(const std::string & authority) {
    if (!authority.empty() && authority[0] == '[') {
        const size_t end = authority.find(']');
        return end == std::string::npos ? authority : authority.substr(1, end - 1);
    }
    std::string name = authority.substr(0, authority.find(':'));
    if (ends_with(name, ".")) {
        name.pop_back(); // the root of DNS
    }
    return name;
}

// "chat.example:8080" of "https://chat.example:8080"; empty where there is none, as in "null".
static std::string authority_in(const std::string & origin) {
    const size_t scheme_end = origin.find("://");
    return scheme_end == std::string::npos ? "" : origin.substr(scheme_end + 3);
}

static bool is_address(const std::string & name) {
    in6_addr bytes;
    return inet_pton(AF_INET, name.c_str(), &bytes) == 1 || inet_pton(AF_INET6, name.c_str(), &bytes) == 1;
}

// Browsers resolve localhost and what is below it themselves.
static bool is_localhost(const std::string & name) { return name == "localhost" || ends_with(name, ".localhost"); }

static bool is_loopback(const std::string & name) {
    in_addr bytes;
    return is_localhost(name) || name == "::1" ||
           (inet_pton(AF_INET, name.c_str(), &bytes) == 1 && ntohl(bytes.s_addr) >> 24 == 127);
}

page_guard::page_guard(page_policy given) : policy(std::move(given)) {
    for (auto & origin : policy.origins) {
        origin = lower(origin);
        if (ends_with(origin, "/")) {
            origin.pop_back();
        }
    }
    for (auto & host : policy.hosts) {
        host = lower(host);
    }
}

// Rebinding needs a name. A Host that is an address is safe: no other site's page can be loaded under the server's
// address.
bool page_guard::is_known_host(const std::string & name) const {
    return name.empty() || is_address(name) || is_localhost(name) || contains(policy.hosts, name) ||
           contains(policy.hosts, "*");
}

bool page_guard::is_allowed_origin(const std::string & origin) const {
    return contains(policy.origins, "*") || contains(policy.origins, origin) ||
           (contains(policy.origins, "localhost") && is_loopback(name_in(authority_in(origin))));
}

// Whether a person opens the address in a window or tab: then the page that led there cannot see the answer.
static bool is_visit(const std::string & method, const page_guard::header_reader & header) {
    return (method == "GET" || method == "HEAD") && header("Sec-Fetch-Mode") == "navigate" &&
           header("Sec-Fetch-Dest") == "document";
}

// Whether it is a preflight that may go to upstream: its answer allows pages of other sites nothing.
static bool is_upstreams_preflight(const std::string & method, const page_guard::header_reader & header) {
    const bool names_session =
        lower(header("Access-Control-Request-Headers")).find("x-conversation-id") != std::string::npos;
    return method == "OPTIONS" && !names_session;
}

std::string page_guard::refusal(const std::string & method, bool is_atlas, const header_reader & header) const {
    if (!is_atlas && (!policy.guards_all || is_upstreams_preflight(method, header))) {
        return "";
    }
    const std::string host = lower(header("Host"));
    const std::string name = name_in(host);
    if (policy.checks_host && !is_known_host(name)) {
        return "this server does not go by the name '" + shown(name) +
               "', by which the page of another site might call it: to allow it, add it to --atlas-allowed-hosts (or "
               "ATLAS_ALLOWED_HOSTS)";
    }
    const std::string origin = lower(header("Origin"));
    const std::string site   = header("Sec-Fetch-Site");
    if (!origin.empty() && is_allowed_origin(origin)) {
        return "";
    }
    // the browser's own word (Sec-Fetch-Site) comes before comparing Origin with Host: a proxy may have changed Host
    const bool is_own = !site.empty()
                            ? site == "same-origin" || site == "none" || (origin.empty() && site == "same-site")
                            : origin.empty() || authority_in(origin) == host;
    if (is_own || contains(policy.origins, "*") || (origin.empty() && is_visit(method, header))) {
        return "";
    }
    const std::string from = shown(origin);
    return "the page of another site" + (from.empty() ? "" : ", " + from + ",") +
           " may not use this server: to allow it, start the server with --cors-origins " +
           (from.empty() ? "ORIGIN" : from) + " (or LLAMA_ARG_CORS_ORIGINS)";
}

} // namespace atlas
