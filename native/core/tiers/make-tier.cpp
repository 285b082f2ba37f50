#include "atlas-make-tier.hpp"
#include "directory-tier.hpp"
#include "resp-tier.hpp"
#include "s3-tier.hpp"
#include "tier-url.hpp"

namespace atlas {

static std::unique_ptr<record_tier> make_directory_tier(const tier_url & url, const tier_limits & limits) {
    const size_t last = url.path.find_last_not_of('/');
    if (last == std::string::npos) {
        url.refuse("a directory is missing");
    }
    return std::make_unique<directory_tier>(url.path.substr(0, last + 1), limits.max_value_bytes);
}

static std::unique_ptr<record_tier> make(const std::string & text, const tier_limits & limits) {
    const tier_url url = parse_tier_url(text);
    if (url.scheme == "s3") {
        return make_s3_tier(url, limits);
    }
    return url.scheme == "file" ? make_directory_tier(url, limits) : make_resp_tier(url, limits);
}

std::unique_ptr<tier> make_tier(const std::string & text, const tier_limits & limits) { return make(text, limits); }

std::unique_ptr<record_tier> make_record_tier(const std::string & url, uint64_t max_value_bytes) {
    tier_limits limits;
    limits.max_value_bytes = max_value_bytes;
    return make(url, limits);
}

} // namespace atlas
