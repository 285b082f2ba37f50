// Whose request it is, by the API key that it came with. Touches the file of the secret, once, at the start; HTTP
// threads ask.
#pragma once

#include "atlas-secret-key.hpp"

#include <memory>
#include <string>

namespace atlas {

struct tenant_options {
    bool        is_separated = false; // requests with different keys find nothing of each other's
    bool        has_names    = false; // plugins say who sends a request
    std::string admin_key;            // empty: none
    bool        has_keys      = false; // a request needs a key
    bool        all_are_admin = true; // without an admin key, everybody may do what an admin may
    std::string directory;            // where the hash's secret is kept; empty: it lasts as long as the process
    std::shared_ptr<const secret_key> fleet = nullptr; // gives the hash's secret instead: the same on all servers
};

struct identity {
    std::string tenant; // 16 hexadecimal digits; empty: no tenants, no key, or the admin
    bool        is_admin = false;
    std::string account; // the key, for limits; empty: no request needs one
    bool        is_plugin = false; // it comes from inside the process
};

// Whether the keys are equal. Takes the same time however much of the presented one is right.
bool is_same_key(const std::string & known, const std::string & presented);

// Immutable once made, so any thread may use it. A tenant's name is a keyed hash (HMAC-SHA-256, RFC 2104) of the API
// key, so that names on disk do not give keys away. The hash's secret is made when it is first needed, in the file
// tenant-secret, or follows from that of the fleet.
class tenants {
  public:
    tenants() : tenants(tenant_options()) {}
    // Throws std::runtime_error when the system gives no random bytes for a secret.
    explicit tenants(tenant_options options);

    // key: as the client presented it, without "Bearer "; upstream has checked it.
    identity identify(const std::string & key) const;

    // Of one whom a plugin knows by that name. Of each name it is another's.
    identity named(const std::string & name, bool is_admin) const;

    // The name that named() was given, of the account that it gave; empty for others.
    static std::string name_of(const std::string & account);

    bool is_separated() const { return opts.is_separated; }

    // What is to be told of names by an earlier secret, which are not those that clients have now; empty: nothing.
    const std::string & notice() const { return said; }

    // The name under which a session is kept: ids hold no '/'.
    static std::string qualified(const std::string & tenant, const std::string & session_id) {
        return tenant.empty() ? session_id : tenant + "/" + session_id;
    }

  private:
    tenant_options opts;
    std::string    secret; // 32 bytes
    std::string    said;
};

} // namespace atlas
