// Has the prompt of a conversation that the server keeps go on from what the model wrote, token by token.
#pragma once

#ifdef LLAMA_ATLAS

#include "json.h"

#include <string>

struct server_http_req;
struct server_prompt;
struct server_task;
struct server_task_result_cmpl_final;

namespace atlas {
class request;
}

// HTTP threads. What was answered before in a request's conversation: a JSON array as exact_answers_of() takes.
void atlas_set_answered(atlas::request & request, const std::string & answers);

// What a completion's handler has made of the body, once its prompt is settled: puts the tokens of earlier answers into it.
void atlas_put_exact_prompt(const server_http_req & req, common_json & data);

// The last result of a request's first sequence.
void atlas_note_exact_answer(atlas::request & request, const server_task_result_cmpl_final & last);

// The answer as it is to be kept beside its text: JSON, null where it is not known token by token.
std::string atlas_exact_answer_of(const atlas::request & request);

// The loop, before it sends the last result.
void atlas_leave_answer(const server_task & task, const server_prompt & prompt);

#endif // LLAMA_ATLAS
