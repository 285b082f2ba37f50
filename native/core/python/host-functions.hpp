// What Python may call of the host: atlas_host_api of atlas-abi.h, whose conventions are cited by number.
#pragma once

#include "atlas-abi.h"
#include "atlas-hook-calls.hpp"
#include "atlas-python.hpp"

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

namespace atlas {

// What Python writes an answer to (convention 4).
struct sink {
    http_response response;
    uint64_t      stream     = 0;
    bool          has_stream = false;
    bool          is_broken  = false; // something that was written to it is missing
};

// A host that Python asks. Must not be destroyed once Python knows it. Open from its construction. Any thread.
class python_host {
  public:
    explicit python_host(host_query query);
    python_host(const python_host &)             = delete;
    python_host & operator=(const python_host &) = delete;
    ~python_host() { close(); }

    // What the query answers; nothing once it is closed. Throws what the query throws.
    std::optional<std::string> ask(int32_t what, std::string_view argument);

    // From now on it answers no query, and no hook is called (convention 7).
    void close();

    hook_calls hooks;
    hook_calls tiers; // apart, so that neither's workers are held up by the other

    // After close(): waits until no query runs any more, so that what they use may be destroyed.
    void wait_for_queries();

  private:
    const host_query query;

    std::mutex              mutex;
    std::condition_variable idle;
    bool                    is_open = true;
    size_t                  running = 0;
};

// The functions; the same for all hosts.
const atlas_host_api & host_functions();

} // namespace atlas
