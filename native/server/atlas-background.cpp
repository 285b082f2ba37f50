#include "atlas-background.h"

#include "atlas-authenticate.h"
#include "atlas-background-routes.hpp"
#include "atlas-background.hpp"
#include "atlas-error.hpp"
#include "atlas-exact-prompt.h"
#include "atlas-hooks.h"
#include "atlas-inside.h"
#include "atlas-log.hpp"
#include "atlas-request.hpp"
#include "atlas-response-draft.h"
#include "atlas-runtime.hpp"
#include "atlas-server-state.h"
#include "atlas-stored-responses.h"
#include "server-common.h"
#include "server-http.h"

#include <string>
#include <utility>

using atlas::background_end;
using atlas::background_response;

static const char * const ROUTE = "/v1/responses";

//
// taking in
//

// Throws atlas::error where what the request asks for cannot be had.
static void check_possible(const atlas::request & request) {
    const auto refuse = [](const std::string & why) { throw atlas::validation_error("background", why); };
    if (request.is_plugins) {
        refuse("a plugin gets whole answers");
    }
    if (const auto why = atlas_active()->why_not_stored(); !why.empty()) {
        refuse("the response is asked for later, and nothing is kept here: " + why);
    }
    if (!request.response->is_to_be_stored()) {
        refuse("the response is asked for later: leave out \"store\": false");
    }
}

// Upstream says now what it would say when the response is made: throws its answer.
static void check_prompt(const std::string & body) {
    atlas::http_request counted;
    counted.method = "POST";
    counted.path   = std::string(ROUTE) + "/input_tokens";
    counted.body   = body;
    auto reply     = atlas_call_inside(atlas_state().routes, counted, {}, nullptr);
    if (reply.status >= 400) {
        throw atlas_answered{std::move(reply)};
    }
}

static std::string event_text(const char * type, int64_t number, const json & response) {
    const json data = {{"type", type}, {"sequence_number", number}, {"response", response}};
    return std::string("event: ") + type + "\ndata: " + safe_json_to_str(data) + "\n\n";
}

static void add_event(background_response & to, const char * type, const json & response) {
    if (to.is_streamed) {
        atlas_active()->background().add_event(to, event_text(type, to.events.next_number(), response));
    }
}

// Durable on return. is_answer: it is complete, so that it belongs to its conversation, too. last_event: the number of the last
// event; below 0: there are none. Returns why it is not in the conversation.
static std::string keep(const atlas::request & request, const json & response, int64_t last_event,
                        bool is_answer = false) {
    const bool is_of_conversation = is_answer && request.response->is_of_conversation();
    return atlas_active()->keep_response(request.tenant, is_of_conversation ? request.session : "",
                                         safe_json_to_str(request.response->input_items()), safe_json_to_str(response),
                                         is_answer ? atlas_exact_answer_of(request) : "null", last_event);
}

//
// making
//

namespace {

// What is left of a client's request once it has its answer. One thread at a time.
class deferred {
  public:
    explicit deferred(const server_http_req & req)
        : state(atlas_state()), request(std::move(req.atlas)), headers(req.headers) {}

    background_end make(background_response & to);

  private:
    atlas_server_state &                     state;
    std::shared_ptr<atlas::request>          request;
    const std::map<std::string, std::string> headers;
    std::string                              code, problem; // of an answer that failed

    void           ask(background_response & to);
    void           take_events(background_response & to, const std::string & piece);
    void           note_failure(int status, const std::string & body);
    background_end end(background_response & to);
};

} // namespace

void deferred::note_failure(int status, const std::string & body) {
    const json answer = json::parse_no_throw(body);
    const json error  = answer.is_object() ? json_value(answer, "error", json()) : json();
    problem           = error.is_object() ? json_value(error, "message", std::string()) : "";
    code              = status == 429 ? "rate_limit_exceeded" : status < 500 ? "invalid_prompt" : "server_error";
}

// Whole events; what upstream says besides is a comment, or an error that ends the answer.
void deferred::take_events(background_response & to, const std::string & piece) {
    static constexpr std::string_view EVENT = "event: ", DATA = "data: ", END = "\n\n";

    for (size_t begin = 0, end; begin < piece.size(); begin = end) {
        end = piece.find(END, begin);
        end = end == std::string::npos ? piece.size() : end + END.size();
        if (piece.compare(begin, EVENT.size(), EVENT) == 0) {
            state.runtime->background().add_event(to, piece.substr(begin, end - begin));
        } else if (piece.compare(begin, DATA.size(), DATA) == 0) {
            note_failure(500, piece.substr(begin + DATA.size(), end - begin - DATA.size()));
        }
    }
}

void deferred::ask(background_response & to) {
    atlas::http_request asked;
    asked.method = "POST";
    asked.path   = ROUTE;
    for (const auto & [name, value] : headers) {
        asked.headers.emplace_back(name, value);
    }
    const auto is_gone = [&to] { return to.is_over() && !to.is_claimed(); };
    auto       reply   = atlas_call_inside(state.routes, asked, {}, is_gone, request);
    if (reply.status >= 400) {
        note_failure(reply.status, reply.body);
    }
    if (reply.status < 400 && !reply.next && !is_gone()) {
        problem = "a plugin answered, with what is no response";
    }
    for (bool has_more = reply.next != nullptr; has_more;) {
        std::string piece;
        has_more = reply.next(piece);
        if (is_gone()) {
            return;
        }
        take_events(to, piece);
    }
}

background_end deferred::end(background_response & to) {
    const bool is_cancelled = to.is_cancelled();
    json       error;
    if (to.is_over() && !is_cancelled) {
        code    = "server_error";
        problem = "the server was stopped before the response was complete";
    }
    if (!is_cancelled) {
        error = {{"code", code.empty() ? "server_error" : code},
                 {"message", problem.empty() ? "the model gave no answer" : problem}};
    }
    const json response = request->response->unfinished(is_cancelled ? "cancelled" : "failed", error);
    try {
        keep(*request, response, to.is_streamed ? to.events.next_number() : -1);
    } catch (const std::exception & failure) {
        atlas::logf(atlas::LogLevel::ERROR, "the end of response %s could not be kept: %s", to.id.c_str(),
                    failure.what());
        to.hold(safe_json_to_str(response));
    }
    add_event(to, is_cancelled ? "response.cancelled" : "response.failed", response);
    return is_cancelled ? background_end::cancelled : background_end::failed;
}

background_end deferred::make(background_response & to) {
    const atlas_state_scope here(state);
    if (!to.is_over()) {
        if (request->meter) {
            request->meter->go_on([&to] { return to.is_over() && !to.is_claimed(); }, atlas::request::clock::now());
        }
        try {
            ask(to);
        } catch (const std::exception & failure) {
            problem = failure.what();
        }
    }
    const auto how = to.is_claimed() ? background_end::completed : end(to);
    request.reset(); // its end is told before that of the response
    return how;
}

void atlas_accept_in_background(const server_http_req & req, const common_json & body) {
    auto & request = *req.atlas;
    auto & draft   = *request.response;
    check_possible(request);
    std::string text = safe_json_to_str(body);
    if (!draft.is_of_conversation()) { // what that has is not in the body
        check_prompt(text);
    }

    draft.set_model(atlas_active()->model_name());
    const json queued     = draft.unfinished("queued", json());
    auto       response   = std::make_shared<background_response>();
    response->tenant      = request.tenant;
    response->id          = draft.id;
    response->is_streamed = request.is_streamed;
    response->queued      = safe_json_to_str(queued);
    response->in_progress = safe_json_to_str(draft.unfinished("in_progress", json()));
    response->bytes       = text.size() + response->queued.size() + response->in_progress.size();

    auto & background = atlas_active()->background();
    try {
        background.accept(response);
    } catch (const atlas::error & error) {
        if (request.meter && error.code == 429) {
            request.meter->refuse(atlas::refusal::too_many);
        }
        throw;
    }
    try {
        keep(request, queued, request.is_streamed ? 0 : -1);
        draft.defer(std::move(text));
        add_event(*response, "response.created", queued);
        add_event(*response, "response.queued", queued);
    } catch (...) {
        background.withdraw(response);
        throw;
    }
    request.background = response;
    if (request.meter) {
        request.meter->go_on([response] { return response->is_over(); }, atlas::request::clock::now());
    }
    auto kept = std::make_shared<deferred>(req);
    background.begin(response, [kept](background_response & to) { return kept->make(to); });

    if (response->is_streamed) {
        throw atlas_answered{atlas::stream_of(response, 0)};
    }
    atlas::http_response answer;
    answer.body = response->queued;
    throw atlas_answered{std::move(answer)};
}

void atlas_keep_in_background(atlas::request & request, const common_json & response) {
    auto & to = *request.background;
    if (!to.claim()) {
        return;
    }
    try {
        const auto problem = keep(request, response, to.is_streamed ? request.response->n_events() - 1 : -1, true);
        if (!problem.empty()) {
            request.degrade(problem);
        }
    } catch (const atlas::error & error) {
        request.degrade(std::string("the response was not kept: ") + error.what());
        to.hold(safe_json_to_str(response)); // for as long as the server runs
    }
}

//
// counting
//

atlas_handler atlas_with_earlier_counted(const atlas_handler & stock) {
    return [stock](const server_http_req & req) {
        static constexpr const char * FIELD = "previous_response_id";
        if (!atlas_active() || req.body.find(FIELD) == std::string::npos) {
            return stock(req);
        }
        json body = json::parse(req.body);
        if (!body.is_object() || json_value(body, FIELD, std::string()).empty()) {
            return stock(req);
        }
        atlas::response_draft draft(body, atlas_state().response_defaults);
        atlas_put_earlier_items(body, draft, atlas_sender(req.headers).tenant);
        atlas::response_draft::translate(body);
        const server_http_req whole{req.params, req.headers,    req.path, req.query_string, safe_json_to_str(body),
                                    {},         req.should_stop};
        return stock(whole);
    };
}
