// How entries are named and written in a store that servers share. A plain one trusts the store. A sealed one does not: the
// store learns sizes and times, and whoever can write to it can at most make values miss. Touches nothing; any thread, but
// the loop's, as sealing takes time.
#pragma once

#include "atlas-seal.hpp"
#include "atlas-state-bytes.hpp"

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace atlas {

class shared_codec {
  public:
    virtual ~shared_codec() = default;

    // The name in the store of an entry of a root; both are given as 64 hexadecimal digits. The same on all servers with the
    // same secret.
    virtual std::string name_of(std::string_view root, std::string_view key) const = 0;

    // What to store under a name for the pieces, one behind the other, of which the first is the header of an entry's file.
    // It lies in `scratch`, or is the pieces themselves: both must outlive it. Throws std::bad_alloc, and std::runtime_error
    // where the system has no random bytes.
    virtual std::vector<std::string_view> wrap(std::string_view name, const std::vector<std::string_view> & pieces,
                                               state_bytes & scratch) const = 0;

    // What was wrapped: in `scratch`, or in the value itself. Nothing where the value was not wrapped under that name with
    // this secret, or was changed; then it is to count as damaged. Throws std::bad_alloc.
    virtual std::optional<std::string_view> unwrap(std::string_view name, std::string_view value,
                                                   state_bytes & scratch) const = 0;

    // By how many bytes a value of so many, with so many in its first piece, is larger than what is wrapped.
    virtual uint64_t extra_bytes(uint64_t n_first, uint64_t n_bytes) const = 0;
};

std::unique_ptr<shared_codec> make_plain_codec();

// Throws std::runtime_error where sealing_is_missing().
std::unique_ptr<shared_codec> make_sealed_codec(const secret_key & fleet_secret);

// What the log says where a store is used without a secret: empty where none but this machine reaches it, as on loopback, at
// a Unix socket, or in a directory. address: [scheme://][user@]host[:port][/…], where host may be in brackets.
std::string needs_secret_warning(std::string_view address);

} // namespace atlas
