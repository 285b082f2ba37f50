// What the errors of S3 mean.
#pragma once

#include "atlas-tier.hpp"

#include <string>
#include <string_view>

namespace atlas::s3 {

// Whether a response says that nothing is kept under the key, and not that there is no such bucket.
bool is_missing(long status, std::string_view body);

// Throws tier_error for the status and the body of a response that is an error.
[[noreturn]] void throw_failure(const std::string & address, long status, std::string_view body);

} // namespace atlas::s3
