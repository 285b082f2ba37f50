// Decides which web pages may send requests to the server. Touches nothing; HTTP threads call it, before they read a
// body.
//
// A browser lets any page send some requests to any server, and tells the server where they come from: in Origin, and
// in Sec-Fetch-Site where it trusts the connection. Other clients send neither. To a browser, a page whose own name was
// bound to the server's address (DNS rebinding) is of the server's origin; but its name stands in Host.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace atlas {

struct page_policy {
    bool guards_all = false; // all routes are guarded, since the process has a memory; else only those of /v1/atlas
    // Origins whose pages may send requests, besides the server's own: "https://chat.example"; "localhost": pages of
    // this machine; "*": all.
    std::vector<std::string> origins;
    bool                     checks_host = false; // Host must hold an IP address, localhost or one of `hosts`
    std::vector<std::string> hosts; // "*": any
};

// Immutable once made, so any thread may use it.
class page_guard {
  public:
    // The value of a request's header, by its name in any case; empty: it has none.
    using header_reader = std::function<std::string(const char * name)>;

    explicit page_guard(page_policy policy);

    // Why a request is refused, and what would allow it, as a text for its client; empty: it may go on.
    // is_atlas: whether its path is /v1/atlas or below it.
    std::string refusal(const std::string & method, bool is_atlas, const header_reader & header) const;

  private:
    page_policy policy;

    bool is_known_host(const std::string & name) const;
    bool is_allowed_origin(const std::string & origin) const;
};

} // namespace atlas
