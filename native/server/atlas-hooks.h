// Where llama-server meets the hooks that plugins have on the path of requests. HTTP threads call these functions, and wait in
// them until the plugins' deadlines at most. Without a plugin that has the hook they do nothing.
//
// All throw atlas::error where a plugin refuses the request.
#pragma once

#ifdef LLAMA_ATLAS

#include "atlas-http.hpp"
#include "json.h"

#include <memory>

struct server_http_req;

namespace atlas {
class request;
}

// A plugin answers in the model's place. Thrown, and caught by atlas_call().
struct atlas_answered {
    atlas::http_response answer;
};

// Has plugins know of the request, as far as it is settled now. req.atlas is set.
void atlas_introduce(const server_http_req & req);

// Whether a plugin changed the body, which has its `atlas` object still. Throws atlas_answered.
bool atlas_ask_on_request(const server_http_req & req, common_json & body);

// Changes the prompt of data, where it has one: text, tokens, or an array of prompts. Only the first call for a request asks.
// Throws atlas_answered.
void atlas_ask_on_prompt(const server_http_req & req, common_json & data);

// The whole answer, as the client is to get it.
void atlas_ask_on_response(atlas::request & request, common_json & answer);

// A piece of a streamed answer, an event or an array of events. Some are held back until there are more: then it is empty, and a
// later one has them all.
void atlas_ask_on_stream_chunk(atlas::request & request, common_json & piece, bool is_last);

#endif // LLAMA_ATLAS
