// The messages of a session: put before those that a client sends, and kept for the next time.
#pragma once

#ifdef LLAMA_ATLAS

#include "json.h"

struct server_http_req;
struct server_task_result_cmpl_final;

namespace atlas {
class request;
}

// server-context.cpp: body is a chat request in the format of /v1/chat/completions. With `history: server`, waits for the
// earlier requests on the session and puts its messages before those sent. Otherwise only notes, where the request has a
// session, what was sent. Throws atlas::error.
common_json atlas_put_history(const server_http_req & req, common_json body);

// Notes the answer that is to be kept with what was sent.
void atlas_note_answer(atlas::request & request, const server_task_result_cmpl_final & result);

// The answer is complete: keeps it with what was sent. Degrades the request when that fails.
void atlas_record_history(atlas::request & request);

#endif // LLAMA_ATLAS
