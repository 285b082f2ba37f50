// Whose request it is, by the API key that it came with.
#pragma once

#include <string>

namespace atlas {

struct tenant_options {
    bool        is_separated = false; // whether requests with different keys find nothing of each other's
    std::string admin_key;            // empty: none
    bool        has_keys      = false; // whether a request needs a key
    bool        all_are_admin = true; // without an admin key: whether everybody may do what an admin may
    std::string directory;            // where the secret of the hash is kept; empty: it is lost with the process
};

struct identity {
    std::string tenant; // 16 hexadecimal digits; empty: no tenants, no key, or the admin
    bool        is_admin = false;
    std::string account; // the key, for limits; empty: no request needs one
};

// Whether a key that somebody presents is a known one. Takes the same time however much of it is right.
bool is_same_key(const std::string & known, const std::string & presented);

// Immutable once made, so any thread may use it. A tenant's name is a keyed hash (HMAC-SHA-256, RFC 2104) of the API key,
// so that names on disk do not give keys away; the secret is made when it is first needed, in the file tenant-secret.
class tenants {
  public:
    tenants() : tenants(tenant_options()) {}
    // Throws std::runtime_error when the system gives no random bytes for a secret.
    explicit tenants(tenant_options options);

    // key: as it was presented, without "Bearer "; it has been checked.
    identity identify(const std::string & key) const;

    bool is_separated() const { return opts.is_separated; }

    // The name under which a session is kept: ids hold no '/'.
    static std::string qualified(const std::string & tenant, const std::string & session_id) {
        return tenant.empty() ? session_id : tenant + "/" + session_id;
    }

  private:
    tenant_options opts;
    std::string    secret; // 32 bytes
};

} // namespace atlas
