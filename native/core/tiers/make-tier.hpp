// Makes the tier that a URL names.
#pragma once

#include "atlas-tier.hpp"

#include <memory>
#include <string>

namespace atlas {

// file:///PATH: a directory that several machines mount. Connects to nothing. Throws std::invalid_argument, whose text says
// what is wrong with the URL and never has a password.
std::unique_ptr<tier> make_tier(const std::string & url, size_t n_connections);

} // namespace atlas
