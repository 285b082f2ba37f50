// A tier on Valkey, Redis or whatever else speaks RESP. Commands: AUTH, CLIENT SETNAME, SELECT, PING, EXISTS, GET, SET EX,
// SET NX, EXPIRE, DEL, for records ZADD, ZREM and ZRANGE, and of a cluster CLUSTER SLOTS: Redis 6.2 has them all.
#pragma once

#include "atlas-make-tier.hpp"
#include "atlas-record-tier.hpp"
#include "tier-url.hpp"

#include <memory>

namespace atlas {

// Of a valkey:// or valkeys:// URL. Throws std::invalid_argument.
std::unique_ptr<record_tier> make_resp_tier(const tier_url & url, const tier_limits & limits);

} // namespace atlas
