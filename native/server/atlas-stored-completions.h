// Chat completions that are kept, as OpenAI's API has them: those whose requests say "store": true. HTTP threads call these
// functions; where a completion is kept they wait for Python and the disk.
//
// https://platform.openai.com/docs/api-reference/chat/list
#pragma once

#ifdef LLAMA_ATLAS

#include "atlas-response-draft.h"
#include "atlas-strict-schemas.h"
#include "json.h"

#include <map>
#include <string>
#include <vector>

struct server_task_result_cmpl_final;

namespace atlas {

class request;

// What is kept of one request on /v1/chat/completions. The HTTP thread that serves the request owns it; no locks.
class completion_draft {
  public:
    // body: the request's. Throws atlas::error 400 where its metadata are wrong.
    completion_draft(const common_json & body, const response_defaults & defaults, const std::string & request_id);

    // What came with the request.
    const common_json & messages() const { return asked; }

    // The first choice is complete.
    void end(const server_task_result_cmpl_final & result);

    // The next chunks of a stream, as the client gets them.
    void add(const common_json & chunks);

    // The completion that they make.
    common_json joined() const;

    // The completion as it is kept: the answer without what is of this server alone, with fields of the request.
    common_json kept(common_json answer) const;

  private:
    // One of the answers, put together from its pieces.
    struct choice {
        std::string              role = "assistant", content, reasoning, refusal;
        std::vector<common_json> calls;
        std::vector<std::string> arguments; // of the calls
        common_json              logprobs; // an array, or null
        common_json              finish_reason;

        void add(const common_json & piece);
        void add_call(const common_json & piece);

        common_json message() const;
        common_json joined(int index) const;
    };

    common_json           asked;
    common_json           echo; // fields of the completion that the request settles
    common_json           head; // of the first chunk
    common_json           usage;
    std::map<int, choice> choices;
    strict_answer         schema;
};

} // namespace atlas

// body: a request's on /v1/chat/completions. Notes what is to be kept of it, where it wants that; where nothing can be kept
// the request is degraded. Throws atlas::error 400.
void atlas_begin_completion(atlas::request & request, const common_json & body);

// What the client is about to get: chunks of a stream, or the answer. Keeps the completion once it is there. Where that fails
// the request is degraded, and its `atlas` object in `answer` says so.
void atlas_keep_chunks(atlas::request & request, common_json & chunks, bool is_last);
void atlas_keep_completion(atlas::request & request, common_json & answer);

#endif // LLAMA_ATLAS
