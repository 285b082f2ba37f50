// Makes the tier that a URL names.
#pragma once

#include "atlas-tier.hpp"

#include <memory>
#include <string>

namespace atlas {

struct tier_limits {
    // Of what others wrote, values beyond this are refused before there is room made for them; tier::limit_values() says less once
    // a model is loaded. RESP's own limit is 512 MiB.
    uint64_t max_value_bytes = 512ull << 20;

    size_t n_connections = 4; // by which a server's values are read; S3 takes twice as many
};

// Connects to nothing. Throws std::invalid_argument, which names the fault and shows the right form, or names the package
// that this build was made without. No error shows a password.
std::unique_ptr<tier> make_tier(const std::string & url, const tier_limits & limits = {});

} // namespace atlas
