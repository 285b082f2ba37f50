// What every HTTP request has to pass before upstream looks at it.
#pragma once

#ifdef LLAMA_ATLAS

#include <atomic>
#include <memory>
#include <string>
#include <vector>

struct common_params;

namespace httplib {
struct Request;
struct Response;
} // namespace httplib

namespace atlas {
struct AtlasServerConfig;
class page_guard;
} // namespace atlas

class atlas_http_guard {
  public:
    // Before the HTTP server is made; the rest is for any thread. With a memory, has CORS allow pages of this machine only,
    // unless --cors-origins is given. Throws std::invalid_argument for a name that no Host can hold.
    void settle(common_params & params, const atlas::AtlasServerConfig & config, bool is_router);

    // What the seams below say, which are called where there is no guard at hand.
    bool refuses(const httplib::Request & request, httplib::Response & response);
    bool keeps_header(const httplib::Request & request, const std::string & name, const std::string & value) const;

  private:
    std::shared_ptr<const atlas::page_guard> pages; // empty: ATLAS takes no part
    bool                                     is_router = false;
    std::atomic<bool>                        is_told{false}; // the log has named one that was refused
};

// server-http.cpp: answers 403 to a request of a web page that may not send it, a preflight too. Returns whether it has.
// What it does not let through has not been read, and reaches no handler.
bool atlas_refuse_page(const httplib::Request & request, httplib::Response & response);

// server-http.cpp: whether handlers get a header of the request. Of one that is repeated they get the first, as where the API
// key is checked. A router's do not get those that say where a request came from: they would pass them on to a model's
// server, whose own address is another.
bool atlas_keeps_header(const httplib::Request & request, const std::string & name, const std::string & value);

// server-http.cpp: whether upstream's error handler must leave the response alone, as its path belongs to ATLAS. Gives an
// error that the server itself made the ATLAS format.
bool atlas_owns_error(const httplib::Request & request, httplib::Response & response);

#endif // LLAMA_ATLAS
