// llama-server's routes, called from inside the process without HTTP: by a program that has the engine, and by plugins.
#pragma once

#ifdef LLAMA_ATLAS

#include "atlas-llama-server.h"
#include "atlas-own-routes.hpp"

#include <functional>
#include <map>
#include <memory>
#include <string>

struct atlas_server_state;
struct server_routes;

// By "METHOD /path"; borrowed from upstream's object.
using atlas_route_table = std::map<std::string, const atlas_handler *>;

// Those of atlas-routes.def. routes has to outlive what is returned.
atlas_route_table atlas_routes_of(const server_routes & routes);

// Answers as llama-server does, what a handler throws too; a path that it does not know with 404. A streamed answer has `next`,
// which must not outlive the handlers. parameters: of the query, decoded. is_gone: whether nobody waits any more; may be
// empty; not asked again once it was so; what it throws counts as so. begun: what was begun of a completion before, and is gone
// on with; else null. For threads that have an atlas_state_scope.
atlas::http_response atlas_call_inside(const atlas_route_table & routes, const atlas::http_request & request,
                                       const std::map<std::string, std::string> & parameters,
                                       std::function<bool()> is_gone, std::shared_ptr<atlas::request> begun = nullptr);

// How plugins call these: as whom they say, and none of their hooks is asked. Any thread. state has to outlive it.
atlas::route_call atlas_calls_of_plugins(atlas_server_state & state, atlas_route_table routes);

#endif // LLAMA_ATLAS
