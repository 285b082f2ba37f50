// The codec of a fleet that has a secret: names are keyed hashes, values are sealed (atlas::fleet_seal), and plain ones are not
// taken.
#pragma once

#include "shared-codec.hpp"

#include <memory>
#include <string>
#include <string_view>

namespace atlas {

class secret_key;

namespace memory {

// Throws std::runtime_error where sealing_is_missing().
std::shared_ptr<const shared_codec> make_sealed_codec(const secret_key & fleet_secret);

} // namespace memory

// What the log says where a store is used without a secret: empty where none but this machine reaches it, as on loopback, at
// a Unix socket, or in a directory. address: [scheme://][user@]host[:port][/…], where host may be in brackets.
std::string needs_secret_warning(std::string_view address);

} // namespace atlas
