#include "atlas-agents.h"

#include "atlas-call-texts.hpp"
#include "atlas-llama-server.h"
#include "atlas-memory.hpp"
#include "atlas-moving-text.hpp"
#include "atlas-request.hpp"
#include "atlas-runtime.hpp"
#include "atlas-server-state.h"
#include "common.h"
#include "server-common.h"
#include "server-http.h"
#include "server-task.h"

#include <algorithm>
#include <utility>
#include <vector>

using atlas::request_route;

static bool is_wanted() { return atlas_active()->config()->normalize_prompts; }

//
// billing lines
//

static void settle(json & holder, const char * key) {
    if (holder.is_object() && holder.contains(key) && holder.at(key).is_string()) {
        std::string text = holder.at(key).get<std::string>();
        if (atlas::settle_billing_line(text)) {
            holder[key] = text;
        }
    }
}

// A text, or parts of which some have one.
static void settle_content(json & holder, const char * key) {
    settle(holder, key);
    if (holder.contains(key) && holder.at(key).is_array()) {
        json & parts = holder.at(key);
        for (size_t i = 0; i < parts.size(); i++) {
            settle(parts.at(i), "text");
        }
    }
}

// Of the instructions alone: what somebody asks about such a line stays.
static void settle_messages(json & body, const char * key) {
    if (!body.contains(key) || !body.at(key).is_array()) {
        return;
    }
    json & messages = body.at(key);
    for (size_t i = 0; i < messages.size(); i++) {
        json &            each = messages.at(i);
        const std::string role = each.is_object() ? json_value(each, "role", std::string()) : "";
        if (role == "system" || role == "developer") {
            settle_content(each, "content");
        }
    }
}

void atlas_settle_prompt(const server_http_req & req, common_json & body) {
    if (!body.is_object() || !is_wanted()) {
        return;
    }
    switch (atlas::route_of(req.path)) {
        case request_route::messages: settle_content(body, "system"); break;
        case request_route::responses:
            settle(body, "instructions");
            settle_messages(body, "input");
            break;
        case request_route::chat: settle_messages(body, "messages"); break;
        default:                  break;
    }
}

//
// calls
//

static bool has_some(const json & holder, const char * key) {
    return holder.is_object() && holder.contains(key) && holder.at(key).is_array() && !holder.at(key).empty();
}

// Of all calls that the messages have, which may be large.
static std::vector<std::string> arguments_in(const json & data) {
    std::vector<std::string> found;
    for (size_t i = 0; has_some(data, "messages") && i < data.at("messages").size(); i++) {
        const json & message = data.at("messages").at(i);
        for (size_t k = 0; has_some(message, "tool_calls") && k < message.at("tool_calls").size(); k++) {
            const json function  = json_value(message.at("tool_calls").at(k), "function", json::object());
            const json arguments = json_value(function, "arguments", json());
            found.push_back(arguments.is_string() ? arguments.get<std::string>() : safe_json_to_str(arguments));
        }
    }
    return found;
}

void atlas_restore_calls(const server_http_req & req, common_json & data) {
    const bool offers_tools = has_some(data, "tools") && data.contains("chat_format") && data.contains("prompt");
    if (!offers_tools || !is_wanted() || !data.at("prompt").is_string()) {
        return;
    }
    const atlas::phase_timer timer(req.atlas.get(), atlas::request_phase::history);
    const std::string        rendered = data.at("prompt").get<std::string>();
    std::string              prompt   = rendered;
    req.atlas->answered_behind = atlas_active()->written_calls.restore(req.atlas->tenant, prompt, arguments_in(data));
    if (prompt != rendered) {
        data["prompt"] = prompt;
    }
}

void atlas_note_written(atlas::request & request, const std::string & more) {
    if (request.answered_behind) {
        request.written += more;
    }
}

void atlas_keep_written(atlas::request & request, const server_task_result_cmpl_final & last) {
    std::vector<std::string> arguments;
    for (const auto & call : last.oaicompat_msg.tool_calls) {
        arguments.push_back(call.arguments);
    }
    if (request.answered_behind && !arguments.empty()) {
        atlas_active()->written_calls.keep(request.tenant, *request.answered_behind, std::move(request.written),
                                           arguments);
    }
}

//
// what has moved
//

// The text of a prompt around a token, as far as no image or sound is in between.
struct token_text {
    std::string text;
    size_t      begin = 0, end = 0; // of the token

    token_text(const server_tokens & tokens, size_t at, const llama_vocab * vocab) {
        size_t first = at;
        for (; first > 0 && tokens[first - 1] != LLAMA_TOKEN_NULL && text.size() < atlas::MOVED_BEFORE; first--) {
            text.insert(0, piece(tokens[first - 1], vocab));
        }
        begin = text.size();
        text += piece(tokens[at], vocab);
        end = text.size();
        for (size_t i = at + 1; i < tokens.size() && text.size() < end + atlas::MOVED_BEHIND; i++) {
            text += piece(tokens[i], vocab);
        }
    }

    static std::string piece(llama_token token, const llama_vocab * vocab) {
        return token == LLAMA_TOKEN_NULL ? "" : common_token_to_piece(vocab, token, /* special */ true);
    }
};

// Whether the session's last turn had more than that, so that its history is another now.
static bool has_more(const std::string & session, size_t n_tokens) {
    if (session.empty()) {
        return false;
    }
    const auto found = atlas_active()->memory()->find_sessions({session});
    return !found.empty() && found[0].n_tokens >= n_tokens + atlas::MIN_BEHIND_MOVED;
}

void atlas_note_moved(atlas::request & request, const server_task & task, const atlas::memory_match & found) {
    static const size_t MAX_SHOWN = 96; // bytes

    const llama_vocab * vocab = atlas_state().vocab;
    const size_t        at    = found.n_known;
    if (!found.has_parted || at == 0 || at + atlas::MIN_BEHIND_MOVED > task.tokens.size() || vocab == nullptr) {
        return;
    }
    const token_text around(task.tokens, at, vocab);
    if (const auto moved = atlas::find_moved(around.text, around.begin, around.end)) {
        const size_t n = std::min(moved->end - moved->begin, MAX_SHOWN);
        request.moved  = {moved->what, at, around.text.substr(moved->begin, n)};
    } else if (has_more(request.session, at)) {
        request.moved = {"history", at, around.text.substr(around.begin, MAX_SHOWN)};
    }
}
