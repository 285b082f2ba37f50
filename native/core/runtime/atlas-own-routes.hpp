// The server's own routes, as plugins call them from inside the process: bounded, and not beyond its end.
#pragma once

#include "atlas-http.hpp"

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

namespace atlas {

// Answers a request to one of llama-server's routes. is_gone: whether nobody waits for the answer any more.
using route_call = std::function<http_response(const http_request & request, const std::function<bool()> & is_gone)>;

// Any thread.
class own_routes {
  public:
    using clock = std::chrono::steady_clock;

    // The model is loaded. call has to be valid until close() returns.
    void open(route_call call);

    // Waits for a turn where max_at_once calls go on, then for the answer, but not beyond the deadline: 503 then, and where
    // there is no model yet, or no longer. What `call` throws is answered with 500.
    http_response call(const http_request & request, clock::time_point deadline, int64_t max_at_once);

    // Lets no more in, and returns when those inside have left; what they wait for has to end by itself.
    void close();

  private:
    std::mutex              mutex;
    std::condition_variable changed;
    route_call              routes; // empty: there is no model yet
    int64_t                 n_inside  = 0;
    bool                    is_closed = false;

    // Nothing, or why it cannot go on.
    std::optional<http_response> enter(clock::time_point deadline, int64_t max_at_once);
    void                         leave();
};

// What a plugin asks, as ATLAS_QUERY_ASK has it.
struct asked_route {
    http_request                request;
    own_routes::clock::duration patience;
};

// Nothing where the argument is not as atlas-abi.h says.
std::optional<asked_route> parse_asked_route(std::string_view argument);

// The answer of ATLAS_QUERY_ASK; of a stream an error.
std::string asked_answer_json(http_response from);

} // namespace atlas
