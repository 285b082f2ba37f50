// TLS of connections to RESP servers, by OpenSSL, where this build has it.
#pragma once

#include "tier-url.hpp"

#include <memory>
#include <string>

struct ssl_ctx_st;
struct ssl_st;

namespace atlas::resp {

// What all connections of a tier share. Any thread.
class tls_client {
  public:
    // The options `ca`, `cert`, `key`, `name` and `verify` of a valkeys:// URL. Throws std::invalid_argument where a file
    // cannot be used, or where the build has no TLS.
    explicit tls_client(const tier_url & url);
    ~tls_client();
    tls_client(const tls_client &)             = delete;
    tls_client & operator=(const tls_client &) = delete;

    // The client's side of a connection to that host, whose certificate has to be for it. The caller frees it. Throws
    // std::bad_alloc.
    ssl_st * connection_to(const std::string & host) const;

  private:
    ssl_ctx_st *      context = nullptr;
    const std::string name; // that certificates are for, if it is another one than the host
};

} // namespace atlas::resp
