// What differs when several models are served behind one port: a router, and a child of it for each model.
#pragma once

#ifdef LLAMA_ATLAS

#include "atlas-tenant.hpp"

struct common_params;

namespace atlas {
class settings;
}

// Whether this process serves no model itself. Throws std::invalid_argument where it is the child of a router: it was
// given no model, would become a router itself, and its request would wait for ever.
bool atlas_is_router(const common_params & params);

// Decides who is separated from whom, by the API keys. Adds the admin key to them where there are any. A router tells its
// children, which have no keys and trust it. Throws std::invalid_argument.
atlas::tenant_options atlas_settle_tenants(common_params & params, const atlas::settings & settings, bool is_router);

// Gives the child of a router a directory of its own under the memory path.
void atlas_settle_place(const common_params & params, atlas::settings & settings);

#endif // LLAMA_ATLAS
