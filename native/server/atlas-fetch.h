// What servers share, on the way of a request: brought near before the request waits for a context, so that no slot idles for
// the network. HTTP threads only.
#pragma once

#ifdef LLAMA_ATLAS

#include "atlas-memory.hpp"
#include "json.h"

struct server_http_req;
struct server_task;

// How a request may use the memory.
atlas::memory_access atlas_access_of(const server_http_req & req);

// Before the request waits for a context: for its prompts that are text or tokens. They are not known to be valid yet; where
// one is not, nothing is fetched for it.
void atlas_fetch_prompts(const server_http_req & req, const common_json & data);

// What was fetched for the prompt of a task, whose lineage and access are settled; it is fetched now where it was not before.
atlas::fetch_result atlas_fetch_for(const server_task & task, const server_http_req & req);

#endif // LLAMA_ATLAS
