// What becomes of one request on /v1/responses: upstream's answer, with the fields and events that OpenAI's API has and
// upstream leaves out. The HTTP thread that serves the request owns it; no locks.
//
// https://platform.openai.com/docs/api-reference/responses, and the Open Responses specification.
#pragma once

#ifdef LLAMA_ATLAS

#include "atlas-response-events.h"
#include "json.h"

#include <cstdint>
#include <string>
#include <utility>

struct server_task_result_cmpl_final;

namespace atlas {

// What the server takes where a request does not say.
struct response_defaults {
    double temperature = 1, top_p = 1, presence_penalty = 0, frequency_penalty = 0;
};

// Throws atlas::error 400 where a request's metadata are not what OpenAI's API takes.
void check_metadata(const common_json & body);

// What a request has there; otherwise where it has nothing, or null.
common_json given_or(const common_json & body, const char * key, const common_json & otherwise);

// Of a text of the answer. Upstream does not count tokens of reasoning apart: those of its text are the nearest that there is.
size_t count_tokens(const std::string & text);

class response_draft {
  public:
    // body: the request's. Throws atlas::error 400, which names the field.
    response_draft(const common_json & body, const response_defaults & defaults);

    // The id of the conversation that a request names, whose session it is; empty: none. Throws atlas::error 400.
    static std::string conversation_of(const common_json & body);

    const std::string id; // of the response, "resp_…"

    // Changes the body into one that upstream's converter takes: items that name their role but no type get one, and the
    // format of the text becomes a response_format.
    static void translate(common_json & body);

    // Whether the response can be asked for later. Until then `store` says no.
    void set_stored(bool is_so) { is_stored = is_so; }
    bool is_to_be_stored() const { return is_stored; }

    // Whether its client does not wait for it.
    bool is_in_background() const { return in_background; }

    // Keeps the request's body, as upstream's converter takes it, until the response is made in the background: as text, which
    // takes less.
    void        defer(std::string body) { deferred = std::move(body); }
    common_json take_deferred();

    // The response as long as it is "queued" or "in_progress", or where it is "failed" or "cancelled". error: null: none.
    common_json unfinished(const char * status, const common_json & error) const;

    // The model's name, as upstream answers it: known once the first piece is there.
    void set_model(const std::string & name) {
        if (model.empty()) {
            model = name; // not for each token
        }
    }

    // The answer is complete: how it ended.
    void end(const server_task_result_cmpl_final & result);

    // An answer that is not streamed, which is a response object.
    void complete(common_json & response) const;

    // The events of a piece of a stream, an array of {"event", "data"}; null: none. Before plugins see them.
    void complete_events(common_json & piece);

    // Numbers them. After plugins have seen them.
    void number_events(common_json & piece);

    // How many have been numbered.
    int64_t n_events() const { return events.count(); }

    // The response object among the events, or the answer that is one; nullptr: there is none that is final.
    static common_json * final_in(common_json & piece);

    // What came with the request, as items.
    const common_json & input_items() const { return input; }

    // The ids of items that stand in the input by their names, as a JSON array; and the items themselves in their places.
    common_json references() const;
    void        put_referenced(const common_json & items);

    const std::string & previous() const { return previous_id; }

    // Whether it is of a conversation; what that had, as messages; and these before those of the input, where there is
    // something to answer. Throws atlas::error 400.
    bool        is_of_conversation() const { return !conversation.empty(); }
    void        set_earlier(common_json messages) { earlier = std::move(messages); }
    common_json behind_earlier(const common_json & messages) const;

  private:
    common_json     echo; // fields of the response that the request settles
    common_json     input;
    common_json     earlier;
    std::string     deferred, previous_id, conversation, model;
    response_events events;
    int64_t         created_at;
    bool            has_instructions   = false;
    bool            is_stored          = false;
    bool            in_background      = false;
    bool            is_cut_off         = false; // at max_output_tokens, or at the end of the context
    size_t          n_reasoning_tokens = 0;
};

} // namespace atlas

#endif // LLAMA_ATLAS
