#include "atlas-make-tier.hpp"
#include "resp-tier.hpp"
#include "s3-tier.hpp"
#include "tier-url.hpp"

#include <stdexcept>

namespace atlas {

std::unique_ptr<tier> make_tier(const std::string & text, const tier_limits & limits) {
    const tier_url url = parse_tier_url(text);
    if (url.scheme == "s3") {
        return make_s3_tier(url, limits);
    }
    if (url.scheme == "file") {
        url.refuse("directories are not served yet"); // the place for a tier of them
    }
    return make_resp_tier(url, limits);
}

} // namespace atlas
