// A tier in a bucket of S3, or of what speaks as it does.
#pragma once

#include "atlas-make-tier.hpp"
#include "atlas-record-tier.hpp"
#include "tier-url.hpp"

#include <memory>

namespace atlas {

// Of an s3:// URL. Throws std::invalid_argument, also where this build has no libcurl that can sign.
std::unique_ptr<record_tier> make_s3_tier(const tier_url & url, const tier_limits & limits);

} // namespace atlas
