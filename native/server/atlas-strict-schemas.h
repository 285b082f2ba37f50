// With --atlas-strict-schemas: the fields that OpenAI's schema of chat completions and Anthropic's of messages require, and that
// upstream leaves out where there is nothing to say. HTTP threads call these functions, which wait for nothing.
//
// https://github.com/openai/openai-openapi, https://docs.anthropic.com/en/api/messages
#pragma once

#ifdef LLAMA_ATLAS

#include "json.h"

#include <string>

struct server_http_req;
struct server_http_res;
struct server_task_result_cmpl_final;

namespace atlas {

class request;

// The answer to one request. The HTTP thread that serves the request owns it; no locks.
class strict_answer {
  public:
    // body: of the request.
    explicit strict_answer(const common_json & body);

    // The first choice is complete: what is known of its tokens from now on.
    void end(const server_task_result_cmpl_final & result);

    // A chat completion or a message, a chunk of one, or an array of chunks or events. What is none of these stays as it is.
    void complete(common_json & piece) const;

  private:
    bool   wants_usage; // of a stream, whose chunks then tell of it
    size_t n_reasoning = 0, n_prompt = 0, n_cached = 0; // tokens

    void complete_chat(common_json & answer) const;
    void complete_chunk(common_json & chunk) const;
    void complete_chat_usage(common_json & usage) const;
    void complete_message(common_json & message) const;
    void complete_message_end(common_json & event) const;
};

} // namespace atlas

// Notes whether the answer is to be complete, and then has the request be heeded as its API has it: a tool that is chosen is
// the one that is called. Throws atlas::error 400 where the request leaves out what the schemas require, or asks for what
// upstream would ignore.
void atlas_begin_strict(const server_http_req & req, common_json & body);

// Whether the error of a request is to be completed, and does it: in Anthropic's form for /v1/messages, else with the field that is
// wrong.
bool atlas_wants_error(const server_http_req & req);
void atlas_complete_error(const server_http_req & req, server_http_res & res);

#endif // LLAMA_ATLAS
