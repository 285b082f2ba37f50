// Which web pages may send requests to the server.
//
// A browser lets any page send some requests to any server, and tells the server where they come from: in Origin, and in
// Sec-Fetch-Site where it trusts the connection. Other clients send neither. A page whose own name was bound to the
// server's address (DNS rebinding) counts as of the server's origin, but its name stands in Host.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace atlas {

struct page_policy {
    bool guards_all = false; // all routes, as the process has a memory; else those of /v1/atlas
    // Of pages that may, besides those of the server itself: "https://chat.example"; "localhost": of this machine; "*": all.
    std::vector<std::string> origins;
    bool                     checks_host = false; // whether Host must hold an IP address, localhost or one of:
    std::vector<std::string> hosts; // "*": any
};

// Immutable once made, so any thread may use it.
class page_guard {
  public:
    // The value of a request's header, by its name in any case; empty: it has none.
    using header_reader = std::function<std::string(const char * name)>;

    explicit page_guard(page_policy policy);

    // Why a request may not go on, for its client to read, with what would allow it; empty: it may.
    // is_atlas: whether it is to /v1/atlas.
    std::string refusal(const std::string & method, bool is_atlas, const header_reader & header) const;

  private:
    page_policy policy;

    bool is_known_host(const std::string & name) const;
    bool is_allowed_origin(const std::string & origin) const;
};

} // namespace atlas
