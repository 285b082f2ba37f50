// Where a bucket is, and who may use it.
#pragma once

#include "tier-url.hpp"

#include <string>

namespace atlas::s3 {

struct account {
    // Of an s3:// URL and the environment. Throws std::invalid_argument, which shows no key.
    explicit account(const tier_url & url);

    // The URL of what is kept under a key, of whatever bytes it is. Its name has letters, digits and . - _ only, as others are
    // escaped in several ways before they are signed; _3A stands for a colon, and so on.
    std::string url_of(const std::string & key) const;

    // The URL of a list of at most so many names that begin with a prefix, behind another name; both as name_of() has them.
    std::string list_url(const std::string & prefix, const std::string & after, size_t n_most) const;

    // What is kept under a key, within the bucket.
    std::string name_of(const std::string & key) const;

    std::string bucket; // the endpoint, and the bucket
    std::string base; // the endpoint, bucket and prefix, with a slash at the end
    std::string region;
    std::string key_id, secret, token; // of a session; may be empty
    std::string ca; // a file of authorities; empty: the system's
    bool        is_verified = true; // whose certificate it is
};

} // namespace atlas::s3
