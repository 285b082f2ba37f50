// Finds the addresses of a host's name within a deadline: getaddrinfo() waits for name servers as long as it likes.
#pragma once

#include "atlas-tier.hpp"

#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace atlas {

// Any thread.
class resolver {
  public:
    // The host's addresses as text, in the order to try them. A lookup that is late goes on, and serves the next call. Throws
    // tier_error (unreachable, or late), whose text is without the host.
    std::vector<std::string> addresses(const std::string & host, tier_deadline until);

  private:
    struct lookup;

    std::mutex              mutex;
    std::shared_ptr<lookup> under_way; // at most one thread waits for name servers
};

} // namespace atlas
