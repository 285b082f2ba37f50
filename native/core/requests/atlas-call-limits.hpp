// Limits the requests under /v1/atlas of one API key. Touches its own locks only; HTTP threads call it.
#pragma once

#include "atlas-config.hpp"
#include "atlas-rate-limit.hpp"

#include <memory>
#include <string>

namespace atlas {

// Any thread.
class call_limits {
  public:
    call_limits();

    // Counts a request as in progress until the last copy of the returned pointer is destroyed, which may be after this
    // object. Throws atlas::error 429 where the settings key_calls_per_s or max_calls_per_key do not allow it.
    std::shared_ptr<void> enter(const std::string & account, const AtlasServerConfig & config);

  private:
    struct in_progress;

    std::shared_ptr<in_progress> running;
    rate_limiter                 rates;
};

} // namespace atlas
