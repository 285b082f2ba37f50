// Whether the books of a catalog agree with one another: what must hold between any two calls, whatever files there are
// and whatever failed.
#pragma once

#include "catalog.hpp"

namespace atlas::memory {

struct catalog_audit {
    // Ends the program with a message where something does not hold. Takes no lock: nobody else may use the catalog.
    static void check(const catalog & of);

    // Every key that is in a tier or on its way to one.
    static std::vector<digest> stored(const catalog & of);

    static const index_node * node(const catalog & of, const digest & key) { return of.index.find(key); }

  private:
    static void check_node(const catalog & of, const index_node & node);
    static void check_tier(const catalog & of, const tier_books & books, tier_state index_node::* state);
    static void check_writes(const catalog & of);
    static void check_sessions(const session_index & of);
};

} // namespace atlas::memory
