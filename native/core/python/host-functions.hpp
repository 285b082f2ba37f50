// What Python may call of the host: atlas_host_api of atlas-abi.h, whose conventions are cited by number.
#pragma once

#include "atlas-abi.h"
#include "atlas-python.hpp"

#include <atomic>
#include <cstdint>
#include <utility>

namespace atlas {

// What Python writes an answer to (convention 4).
struct sink {
    http_response response;
    uint64_t      stream     = 0;
    bool          has_stream = false;
    bool          is_broken  = false; // something that was written to it is missing
};

// A host that Python asks. Must not be destroyed once Python knows it. Open from its construction.
class python_host {
  public:
    explicit python_host(host_query query);
    python_host(const python_host &)             = delete;
    python_host & operator=(const python_host &) = delete;
    ~python_host() { close(); }

    // From now on it answers no query (convention 7). Any thread.
    void close();

    bool is_open() const { return open; }

    const host_query query;

  private:
    std::atomic<bool> open{true};
};

// The functions; the same for all hosts.
const atlas_host_api & host_functions();

} // namespace atlas
