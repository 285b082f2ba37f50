// Calls that may take long, for callers that wait a moment only: into Python, where a plugin may hold the GIL. It makes
// a thread for a call; HTTP threads wait here, for no longer than the limit.
#pragma once

#include "atlas-http.hpp"

#include <chrono>
#include <functional>
#include <memory>
#include <optional>

namespace atlas {

class timely_calls {
  public:
    timely_calls();

    // What the call returns, or nothing where that takes longer than the limit, which counts from now. Each call runs
    // on a thread of its own, one at a time. A late call goes on, and what it returns is dropped; until it has
    // returned, other calls get nothing at once: so one thread is lost at most. The call owns what it uses. Returns
    // nothing, too, where the call throws, or the system has no thread. Any thread.
    std::optional<http_response> run(std::function<http_response()> call, std::chrono::milliseconds limit);

  private:
    struct state; // shared with the call that is under way, which may outlive this object
    std::shared_ptr<state> shared;
};

} // namespace atlas
