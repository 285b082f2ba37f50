// The part of the joint that is compiled into server-context, which the CLI uses too: what touches completions.
#include "atlas-error.hpp"
#include "atlas-llama-server.h"
#include "atlas-runtime.hpp"
#include "server-common.h"
#include "server-http.h"
#include "server-task.h"

#include <string>
#include <utility>

std::unique_ptr<atlas::runtime> & atlas_active() {
    static std::unique_ptr<atlas::runtime> active;
    return active;
}

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

std::unique_ptr<server_http_res> atlas_error_response(const atlas::error & error) {
    return atlas_server_response(atlas::error_response(error));
}

// The text of what stands under `atlas`. No field of it takes an array or an object, so these are written empty: dump()
// recurses, and a client that nests deep enough would use up the thread's stack.
static std::string shallow_text(json & value) {
    if (value.is_array()) {
        return "[]";
    }
    if (value.is_object()) {
        for (const auto & entry : value.items()) {
            if (entry.value().is_array() || entry.value().is_object()) {
                entry.value().clear();
            }
        }
    }
    return value.dump();
}

common_json atlas_parse_body(const server_http_req & req) {
    const auto began  = atlas::request::clock::now();
    json       body   = json::parse(req.body);
    auto &     active = atlas_active();
    if (active && body.is_object() && body.contains("atlas")) {
        req.atlas = active->begin_request(shallow_text(body.at("atlas")), began);
        body.erase("atlas");
    }
    return body;
}

// A shorter prompt says more of a batch than of a token.
static const int MIN_MEASURED_PROMPT = 16;

void atlas_on_result(atlas::request * request, const server_task_result & result, common_json & out, bool is_last) {
    const auto   began = atlas::request::clock::now();
    const auto * final_result =
        request || is_last ? dynamic_cast<const server_task_result_cmpl_final *>(&result) : nullptr;
    if (final_result && atlas_active() && final_result->stats.n_prompt_processed >= MIN_MEASURED_PROMPT) {
        atlas_active()->prefill.add(final_result->stats.t_prompt_ms() / 1000, final_result->stats.n_prompt_processed);
    }
    if (request == nullptr) {
        return;
    }
    if (final_result) {
        request->add_usage({final_result->n_prompt_tokens, final_result->n_prompt_tokens_cache});
    }
    if (!is_last) {
        return;
    }
    request->add_overhead(atlas::request::clock::now() - began);

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
    (*target)["atlas"] = json::parse(request->answer());
}
