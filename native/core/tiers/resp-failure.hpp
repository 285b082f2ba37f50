// What a RESP server's errors mean.
#pragma once

#include "atlas-tier.hpp"

#include <string>
#include <string_view>

namespace atlas::resp {

// A server of a cluster that does not have the key, any more.
struct moved_error : tier_error {
    using tier_error::tier_error;
};

// Text that a server sent, fit for a log: one line of printable characters, not too long, and without the password, which
// servers that do not know a command repeat.
std::string for_log(std::string_view text, const std::string & password);

// Throws moved_error or tier_error for an error reply.
[[noreturn]] void throw_failure(const std::string & address, std::string_view reply, const std::string & password);

} // namespace atlas::resp
