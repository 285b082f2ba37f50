// /v1/responses as OpenAI has it: a request may go on from a response that was kept, and its own is kept before it is
// answered. HTTP threads call these functions; where something is kept or read they wait for Python and the disk.
#pragma once

#ifdef LLAMA_ATLAS

#include "atlas-runtime.hpp"
#include "json.h"

#include <string>

struct server_http_req;

namespace atlas {
class request;
class response_draft;
} // namespace atlas

// body: a request's on /v1/responses. Puts what the response it goes on from was about before its input, or reads the conversation
// that it names, once earlier requests on that have ended; has the rest of it be what upstream takes. Throws atlas::error: 400,
// 404 where there is no such response or conversation, 429, 503.
void atlas_begin_response(const server_http_req & req, common_json & body);

// Puts what the response that a request goes on from was about before its input; what is known of that.
atlas::runtime::response_items atlas_put_earlier_items(common_json & body, atlas::response_draft & draft,
                                                       const std::string & tenant);

// Adds to an answer, or to the events of a piece of one, what upstream leaves out. Before plugins see it. Does nothing for
// other routes, as the next.
void atlas_complete_response(atlas::request & request, common_json & answer);

// What the client is about to get: numbers events, and keeps the response once it is there. Where that fails its `store` says
// so, and the request is degraded.
void atlas_keep_response(atlas::request & request, common_json & answer);

#endif // LLAMA_ATLAS
