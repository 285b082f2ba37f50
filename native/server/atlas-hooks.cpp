#include "atlas-hooks.h"

#include "atlas-error.hpp"
#include "atlas-limits.hpp"
#include "atlas-request.hpp"
#include "atlas-server-state.h"
#include "atlas-tenant.hpp"
#include "server-common.h"
#include "server-http.h"

#include <string>
#include <utility>

using atlas::hook;

static bool has(const atlas::request * request, hook what) {
    return request != nullptr && request->hooks && request->hooks->has(what);
}

static json head_of(const server_http_req & req, const atlas::request & request) {
    json headers = json::object();
    for (const auto & [name, value] : req.headers) {
        headers[name] = value;
    }
    return {{"route", req.path.substr(atlas_state().route_prefix.size())},
            {"request_id", request.request_id},
            {"tenant", request.tenant},
            {"is_admin", request.is_admin},
            {"name", atlas::tenants::name_of(request.account)},
            {"session_id", request.options().session_id ? json(*request.options().session_id) : json()},
            {"is_streamed", request.is_streamed},
            {"headers", headers}};
}

// is_read: whether any plugin wants the body, which may be large.
static atlas::hook_outcome ask(atlas::request & request, hook what, const json & body, bool is_read) {
    const atlas::phase_timer timer(&request, atlas::request_phase::plugins);
    try {
        return request.hooks->ask(what, is_read ? safe_json_to_str(body) : "null");
    } catch (const atlas::error &) {
        if (request.meter) {
            request.meter->refuse(atlas::refusal::plugin);
        }
        throw;
    }
}

// Python wrote it, so it is JSON; but what is nested too deep would end the process.
static json parsed(hook what, const std::string & text) {
    if (atlas::is_json_deeper_than(text, atlas::MAX_JSON_DEPTH)) {
        throw atlas::error(500,
                           std::string("what a plugin made of it in ") + atlas::name_of(what) + " is nested too deep");
    }
    return json::parse(text);
}

static void throw_answer(atlas::request & request, atlas::hook_outcome & outcome) {
    if (outcome.answer) {
        if (request.meter && outcome.answer->status < 400) {
            request.meter->complete();
        }
        throw atlas_answered{std::move(*outcome.answer)};
    }
}

void atlas_introduce(const server_http_req & req) {
    if (req.atlas->hooks) {
        req.atlas->hooks->set_head(safe_json_to_str(head_of(req, *req.atlas)));
    }
}

bool atlas_ask_on_request(const server_http_req & req, common_json & body) {
    if (!has(req.atlas.get(), hook::request)) {
        return false;
    }
    auto outcome = ask(*req.atlas, hook::request, body, req.atlas->hooks->reads_body(hook::request));
    throw_answer(*req.atlas, outcome);
    if (outcome.changed) {
        body = parsed(hook::request, *outcome.changed);
    }
    return outcome.changed != nullptr;
}

void atlas_ask_on_prompt(const server_http_req & req, common_json & data) {
    if (!has(req.atlas.get(), hook::prompt) || !data.is_object() || !data.contains("prompt") ||
        std::exchange(req.atlas->hooks->has_seen_prompt, true)) {
        return;
    }
    auto outcome = ask(*req.atlas, hook::prompt, data.at("prompt"), req.atlas->hooks->reads_body(hook::prompt));
    throw_answer(*req.atlas, outcome);
    if (outcome.changed) {
        data["prompt"] = parsed(hook::prompt, *outcome.changed);
    }
}

void atlas_ask_on_response(atlas::request & request, common_json & answer) {
    if (!has(&request, hook::response)) {
        return;
    }
    const auto outcome = ask(request, hook::response, answer, true);
    if (outcome.changed) {
        answer = parsed(hook::response, *outcome.changed);
        request.forget_exact_answer();
    }
}

void atlas_ask_on_stream_chunk(atlas::request & request, common_json & piece, bool is_last) {
    if (!has(&request, hook::stream_chunk) || (piece.is_null() && !is_last)) {
        return;
    }
    std::string events = piece.is_null() ? "" : safe_json_to_str(piece);
    if (piece.is_array()) {
        events = events.substr(1, events.size() - 2);
    }
    const std::string due = request.hooks->hold(events, is_last);
    if (due.empty()) {
        piece = json::array();
        return;
    }
    const atlas::phase_timer timer(&request, atlas::request_phase::plugins);
    const std::string        asked   = R"({"events":[)" + due + R"(],"is_last":)" + (is_last ? "true}" : "false}");
    const auto               outcome = request.hooks->ask(hook::stream_chunk, asked);
    if (outcome.changed) {
        request.forget_exact_answer();
    }
    piece = parsed(hook::stream_chunk, outcome.changed ? *outcome.changed : asked).at("events");
}
