// Calls that may not come back for long, for those who wait a moment only: into Python, where a plugin may hold the GIL.
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

    // What the call returns, or nothing where that takes longer than the limit, which counts from now. Each call runs on a
    // thread of its own, one at a time. One that is late goes on, what it returns is dropped, and until it has returned the
    // others get nothing at once: so one thread is lost at most. The call owns what it uses. Nothing, too,
    // where it throws, or the system has no thread. Any thread.
    std::optional<http_response> run(std::function<http_response()> call, std::chrono::milliseconds limit);

  private:
    struct state; // shared with the call that is under way, which may outlive this object
    std::shared_ptr<state> shared;
};

} // namespace atlas
