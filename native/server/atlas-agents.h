// What programs that work with tools send: prompts whose beginning moves, and calls that come back in other words.
#pragma once

#ifdef LLAMA_ATLAS

#include "json.h"

#include <string>

struct server_http_req;
struct server_task;
struct server_task_result_cmpl_final;

namespace atlas {
struct memory_match;
class request;
} // namespace atlas

// All of them are for HTTP threads.

// The body of a completion, as it came: makes equal what a billing line has of a single request, where that is set. A prompt
// that is sent as text is left as it is.
void atlas_settle_prompt(const server_http_req & req, common_json & body);

// What a completion's handler has made of the body: where its prompt offers tools, puts calls as the model wrote them.
void atlas_restore_calls(const server_http_req & req, common_json & data);

// The result of a request's first sequence: more of its text, and its end.
void atlas_note_written(atlas::request & request, const std::string & more);
void atlas_keep_written(atlas::request & request, const server_task_result_cmpl_final & last);

// What was found for a request's first prompt: notes what has moved in it.
void atlas_note_moved(atlas::request & request, const server_task & task, const atlas::memory_match & found);

#endif // LLAMA_ATLAS
