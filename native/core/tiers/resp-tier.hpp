// A tier on Valkey, Redis or whatever else speaks RESP. Commands: AUTH, CLIENT SETNAME, SELECT, PING, EXISTS, GET, SET EX,
// EXPIRE, DEL, and of a cluster CLUSTER SLOTS: Redis 6.2 has them all.
#pragma once

#include "atlas-make-tier.hpp"
#include "tier-url.hpp"

#include <memory>

namespace atlas {

// Of a valkey:// or valkeys:// URL. Throws std::invalid_argument.
std::unique_ptr<tier> make_resp_tier(const tier_url & url, const tier_limits & limits);

} // namespace atlas
