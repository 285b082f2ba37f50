// The part of the joint that is compiled into server-context, which the CLI uses too: what touches completions.
#include "atlas-agents.h"
#include "atlas-authenticate.h"
#include "atlas-error.hpp"
#include "atlas-exact-prompt.h"
#include "atlas-fetch.h"
#include "atlas-history.h"
#include "atlas-hooks.h"
#include "atlas-limits.h"
#include "atlas-llama-server.h"
#include "atlas-request-admission.hpp"
#include "atlas-response-draft.h"
#include "atlas-runtime.hpp"
#include "atlas-server-state.h"
#include "atlas-slots.h"
#include "atlas-stored-completions.h"
#include "atlas-stored-responses.h"
#include "atlas-strict-schemas.h"
#include "server-common.h"
#include "server-http.h"
#include "server-stream.h"
#include "server-task.h"

#include <strings.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>
#include <vector>

std::unique_ptr<server_http_res> atlas_server_response(atlas::http_response && from) {
    auto res          = std::make_unique<server_http_res>();
    res->status       = from.status;
    res->content_type = from.content_type;
    res->data         = std::move(from.body);
    for (auto & [name, value] : from.headers) {
        res->headers[name] = value;
    }
    res->next = std::move(from.next);
    return res;
}

// Empty when there is none.
static std::string header_of(const std::map<std::string, std::string> & headers, const char * wanted) {
    for (const auto & [name, value] : headers) {
        if (strcasecmp(name.c_str(), wanted) == 0) {
            return value;
        }
    }
    return "";
}

std::string atlas_presented_key(const std::map<std::string, std::string> & headers) {
    static const std::string BEARER = "Bearer ";

    const std::string authorization = header_of(headers, "authorization");
    const std::string key           = authorization.empty() ? header_of(headers, "x-api-key") : authorization;
    return key.compare(0, BEARER.size(), BEARER) == 0 ? key.substr(BEARER.size()) : key;
}

atlas::identity atlas_sender(const std::map<std::string, std::string> & headers) {
    const auto & named = atlas_named_sender();
    return named ? *named : atlas_active()->gate().who().identify(atlas_presented_key(headers));
}

std::string atlas_own_name(const std::map<std::string, std::string> & headers, const std::string & name) {
    const auto & active = atlas_active();
    const auto   tenant = active ? atlas_sender(headers).tenant : "";
    return atlas::tenants::qualified(tenant, name);
}

// By the `atlas` object of the body.
static void set_options(const server_http_req & req, const json & body) {
    const std::string atlas        = body.is_object() && body.contains("atlas") ? body.at("atlas").dump() : "";
    const bool        is_response  = atlas::route_of(req.path) == atlas::request_route::responses;
    const std::string conversation = is_response ? atlas::response_draft::conversation_of(body) : "";
    const json        key          = body.is_object() ? json_value(body, "prompt_cache_key", json()) : json();
    atlas::request_admission::set_options(*req.atlas, atlas, server_stream_conv_id_from_headers(req.headers),
                                          conversation, key.is_string() ? key.get<std::string>() : "");
    atlas_introduce(req);
}

static bool is_streamed(const json & body) { return body.is_object() && json_value(body, "stream", false); }

// Of /v1/messages: upstream answers as if nothing had been said.
static void check_messages(const json & body) {
    if (body.is_object() && body.contains("messages") && !body.at("messages").is_array()) {
        throw atlas::validation_error("messages", "value must be an array");
    }
}

common_json atlas_parse_body(const server_http_req & req) {
    auto & active = atlas_active();
    if (!active) {
        return json::parse(req.body);
    }
    if (req.atlas) {
        return req.atlas->response->take_deferred(); // it was parsed, and let in, when its client sent it
    }
    atlas::completion_head head;
    head.began             = atlas::request::clock::now();
    head.meter             = active->gate().meter(req.path, req.should_stop, head.began);
    json body              = json::parse(req.body);
    head.who               = atlas_sender(req.headers);
    head.request_id        = header_of(req.headers, "x-request-id");
    head.traceparent       = header_of(req.headers, "traceparent");
    req.atlas              = active->gate().begin(std::move(head));
    req.atlas->is_streamed = is_streamed(body);
    atlas_introduce(req); // one that is refused for its `atlas` object has an end, too
    set_options(req, body);
    if (atlas_ask_on_request(req, body)) {
        req.atlas->is_streamed = is_streamed(body);
        set_options(req, body);
    }
    active->let_in(*req.atlas);
    atlas_settle_prompt(req, body);
    if (body.is_object()) {
        body.erase("atlas");
    }
    const auto route = atlas::route_of(req.path);
    if (route == atlas::request_route::messages) {
        check_messages(body);
    }
    atlas_begin_strict(req, body);
    if (route == atlas::request_route::chat) {
        atlas_begin_completion(*req.atlas, body);
    }
    if (route == atlas::request_route::responses) {
        atlas_begin_response(req, body);
    }
    if (route == atlas::request_route::completions || route == atlas::request_route::completion) {
        atlas_ask_on_prompt(req, body); // the others make a prompt of it
    }
    return body;
}

bool atlas_is_streamed(const server_http_req & req) {
    return atlas_state().keeps_streams && (!req.atlas || (req.atlas->is_streamed && !req.atlas->background));
}

static const int MAX_SEQUENCES = 4096; // for counting only; llama-server refuses what it cannot do

// How many sequences a request asks for of each prompt.
static int count_choices(const json & data) {
    return atlas_count_of(data, data.contains("n_cmpl") ? "n_cmpl" : "n", MAX_SEQUENCES);
}

// How many prompts it has. One may be text, tokens, or both mixed, in one array.
static int count_prompts(const json & data) {
    if (!data.is_object() || !data.contains("prompt")) {
        return 1; // and refused by llama-server
    }
    const json & prompt = data.at("prompt");
    if (!prompt.is_array()) {
        return 1;
    }
    bool has_number = false;
    bool has_nested = false;
    for (size_t i = 0; i < prompt.size(); i++) {
        has_number |= prompt.at(i).is_number();
        has_nested |= prompt.at(i).is_array() || prompt.at(i).is_object();
    }
    return has_number && !has_nested ? 1 : (int) std::min<size_t>(prompt.size(), MAX_SEQUENCES);
}

std::shared_ptr<atlas::request> atlas_admit(atlas_posting & posting, const server_http_req & req,
                                            const common_json & data) {
    size_t max_posted = 0;
    atlas_check_parameters(data);
    if (req.atlas) {
        req.atlas->is_admitted = true;
        if (req.atlas->options().history == atlas::history_keeper::server && !req.atlas->session_lock) {
            throw atlas::validation_error("atlas.history", "\"server\" needs messages: this route takes a prompt");
        }
        // upstream's handlers make data themselves, as what is not const, but where atlas_parse_body() has asked
        atlas_restore_calls(req, const_cast<json &>(data));
        if (!req.atlas->hooks || !req.atlas->hooks->has_seen_prompt) {
            atlas_ask_on_prompt(req, const_cast<json &>(data));
        }
        atlas_put_exact_prompt(req, const_cast<json &>(data));
        const int n_choices   = data.is_object() && data.contains("prompt") ? count_choices(data) : 1;
        const int n_sequences = count_prompts(data) * n_choices;
        atlas_fetch_prompts(req, data);
        const int n_at_once = atlas_active()->gate().admit(*req.atlas, n_sequences, req.should_stop);
        max_posted          = n_at_once < n_sequences ? n_at_once : 0;
        if (req.atlas->meter) {
            req.atlas->meter->set_choices(n_choices, max_posted > 0);
        }
    }
    posting.expect(req, max_posted);
    return req.atlas;
}

// What a result tells of its sequence: partial or final.
template <typename T> static atlas::sequence_result tokens_of(const T & result) {
    atlas::sequence_result seen;
    seen.index         = result.index;
    seen.prompt_tokens = result.n_prompt_tokens;
    seen.reused_tokens = result.n_prompt_tokens_cache;
    seen.answer_tokens = result.n_decoded;
    return seen;
}

static atlas::sequence_result last_of(const server_task_result_cmpl_final & result) {
    auto          seen = tokens_of(result);
    const int64_t now  = ggml_time_us();
    seen.is_timed      = result.stats.t_start > 0 && result.stats.t_prompt_last > 0;
    if (seen.is_timed) {
        seen.since_start       = std::chrono::microseconds(now - result.stats.t_start);
        seen.since_first_token = std::chrono::microseconds(now - result.stats.t_prompt_last);
    }
    return seen;
}

// A shorter prompt says more of a batch than of a token.
static const int MIN_MEASURED_PROMPT = 16;

static void note_final(atlas::request & request, const server_task_result_cmpl_final & result, bool is_last) {
    if (result.stats.n_prompt_processed >= MIN_MEASURED_PROMPT) {
        atlas_active()->prefill.add(result.stats.t_prompt_ms() / 1000, result.stats.n_prompt_processed);
    }
    if (result.index == 0) {
        atlas_note_answer(request, result);
        atlas_note_written(request, result.content);
        atlas_keep_written(request, result);
        atlas_note_exact_answer(request, result);
        if (request.response) {
            request.response->end(result);
        }
        if (request.completion) {
            request.completion->end(result);
        }
        if (request.strict) {
            request.strict->end(result);
        }
    }
    if (is_last) {
        atlas_record_history(request);
    }
}

// The one place where llama-server's results are read: for each token of a streamed answer, so a cast or two is all.
static void note(atlas::request & request, const server_task_result & result, bool is_last) {
    atlas::request_meter & meter = *request.meter;
    if (is_last) {
        meter.complete();
    }
    if (const auto * partial = dynamic_cast<const server_task_result_cmpl_partial *>(&result)) {
        auto seen       = tokens_of(*partial);
        seen.is_partial = true;
        meter.add_result(seen, atlas::request::clock::now());
        if (partial->index == 0) {
            atlas_note_written(request, partial->content);
        }
        if (request.response) {
            request.response->set_model(partial->oaicompat_model);
        }
    } else if (const auto * last = dynamic_cast<const server_task_result_cmpl_final *>(&result)) {
        meter.add_result(last_of(*last), atlas::request::clock::now());
        note_final(request, *last, is_last);
    }
}

// On the last result puts the `atlas` object into its JSON.
static void note_result(atlas::request & request, const server_task_result & result, common_json & out, bool is_last) {
    note(request, result, is_last);
    if (is_last) {
        request.lease.reset(); // the slots are free: whoever waits for them need not wait for the client to read
    }
    if (!is_last || !request.has_atlas_object()) {
        return;
    }
    const atlas::phase_timer timer(&request, atlas::request_phase::answer);

    json * target = &out;
    while (target->is_array() && !target->empty()) {
        target = &target->back();
    }
    // an event of /v1/responses or /v1/messages: into what the client sees as the event's data, and where that
    // carries the whole response, into the response, as in the answer that is not streamed
    if (target->contains("event") && target->contains("data")) {
        target = &target->at("data");
    }
    if (target->contains("response") && target->at("response").is_object()) {
        target = &target->at("response");
    }
    (*target)["atlas"] = json::parse(request.answer());
}

// Adds what its API promises and upstream leaves out, before plugins see it.
static void complete(atlas::request & request, json & out) {
    atlas_complete_response(request, out);
    if (request.strict) {
        request.strict->complete(out);
    }
}

void atlas_on_result(const std::shared_ptr<atlas::request> & to, const server_task_result & result, common_json & out,
                     bool is_last) {
    atlas::request * request = to.get();
    if (request == nullptr) {
        return;
    }
    note_result(*request, result, out, is_last);
    if (out.is_null() && request->has_atlas_object()) {
        out = json::array(); // a later sequence begins: nothing for the client, who would get the event "null"
    }
    complete(*request, out);
    atlas_ask_on_stream_chunk(*request, out, is_last);
    atlas_keep_response(*request, out);
    atlas_keep_chunks(*request, out, is_last);
}

// What upstream is about to make of the answers to one request.
static json as_sent(json & answers, bool is_merged) {
    if (answers.size() > 1 && !is_merged) {
        return answers;
    }
    json answer = answers.at(0);
    for (size_t i = 1; i < answers.size(); i++) {
        answer["choices"].push_back(answers.at(i).at("choices").at(0));
    }
    return answer;
}

void atlas_on_results(const std::shared_ptr<atlas::request> &                  request,
                      const std::vector<std::unique_ptr<server_task_result>> & results, common_json & out, int type) {
    if (!request) {
        return;
    }
    const bool is_merged = type == TASK_RESPONSE_TYPE_OAI_CHAT || type == TASK_RESPONSE_TYPE_OAI_CMPL;
    for (size_t i = 0; i < results.size(); i++) {
        note_result(*request, *results[i], out[is_merged ? 0 : i], i + 1 == results.size());
        complete(*request, out[i]);
    }
    if (request->hooks && request->hooks->has(atlas::hook::response)) {
        json answer = as_sent(out, is_merged);
        atlas_ask_on_response(*request, answer);
        out = json::array();
        out.push_back(std::move(answer));
    }
    atlas_keep_response(*request, out.at(0));
    if (request->completion) {
        json answer = as_sent(out, is_merged);
        atlas_keep_completion(*request, answer);
        if (answer.contains("atlas")) {
            out.at(0)["atlas"] = answer.at("atlas");
        }
    }
}
