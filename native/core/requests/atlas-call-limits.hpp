// How many requests under /v1/atlas the holder of one API key may make.
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

    // Counts a request in, by the settings key_calls_per_s and max_calls_per_key, until the last copy of what is returned is
    // destroyed, which may be after this object. Throws atlas::error 429.
    std::shared_ptr<void> enter(const std::string & account, const AtlasServerConfig & config);

  private:
    struct in_progress;

    std::shared_ptr<in_progress> running;
    rate_limiter                 rates;
};

} // namespace atlas
