// Responses of /v1/responses that are made in the background: taken in on the thread that serves the client, which leaves; made
// on a thread of their own, as the same request would be, whose place, hooks, rates and record are its client's.
#pragma once

#ifdef LLAMA_ATLAS

#include "atlas-llama-server.h"
#include "json.h"

struct server_http_req;

namespace atlas {
class request;
}

// The request is settled and asks for it: keeps its response as queued, durably, and has it made once it is its turn. body: as
// upstream's converter takes it. Always throws: what the client gets, which is the response or its events, as atlas_answered;
// what refuses it as that or as atlas::error. req has no request after that.
[[noreturn]] void atlas_accept_in_background(const server_http_req & req, const common_json & body);

// The answer is there, and complete but for being kept: keeps it, unless it was cancelled.
void atlas_keep_in_background(atlas::request & request, const common_json & response);

// Upstream's handler of POST /v1/responses/input_tokens, which counts the tokens of what a request goes on from, too.
atlas_handler atlas_with_earlier_counted(const atlas_handler & stock);

#endif // LLAMA_ATLAS
