#include "atlas-history.h"

#include "atlas-error.hpp"
#include "atlas-gateway.hpp"
#include "atlas-llama-server.h"
#include "atlas-runtime.hpp"
#include "server-common.h"
#include "server-http.h"
#include "server-task.h"

#include <string>
#include <utility>

// Deeper than any message; dump() and what follows it recurse.
static const int MAX_DEPTH = 64;

static bool is_deeper_than(json & value, int limit) {
    if (!value.is_array() && !value.is_object()) {
        return false;
    }
    if (limit == 0) {
        return true;
    }
    for (const auto & entry : value.items()) {
        if (is_deeper_than(entry.value(), limit - 1)) {
            return true;
        }
    }
    return false;
}

// How many messages at the beginning are instructions.
static size_t count_instructions(const json & messages) {
    size_t n = 0;
    while (n < messages.size() && messages.at(n).is_object()) {
        const std::string role = json_value(messages.at(n), "role", std::string());
        if (role != "system" && role != "developer") {
            break;
        }
        n++;
    }
    return n;
}

static void append(json & to, const json & from, size_t begin, size_t end) {
    for (size_t i = begin; i < end; i++) {
        to.push_back(from.at(i));
    }
}

// The record goes behind the instructions sent, or keeps its own where none were.
static json join(const json & record, const json & sent) {
    const size_t n_sent_first   = count_instructions(sent);
    const size_t n_record_first = count_instructions(record);
    json         joined         = json::array();
    append(joined, sent, 0, n_sent_first);
    append(joined, record, n_sent_first > 0 ? n_record_first : 0, record.size());
    append(joined, sent, n_sent_first, sent.size());
    return joined;
}

common_json atlas_put_history(const server_http_req & req, common_json body) {
    if (!req.atlas || req.atlas->session.empty() || !body.contains("messages") || !body.at("messages").is_array()) {
        return body;
    }
    auto &     request     = *req.atlas;
    const bool is_too_deep = is_deeper_than(body.at("messages"), MAX_DEPTH);
    if (request.options().history == atlas::history_keeper::client) {
        const atlas::phase_timer timer(&request, atlas::request_phase::history);
        if (!is_too_deep && atlas_active()->keeps_conversations()) {
            request.messages = safe_json_to_str(body.at("messages"));
        }
        return body;
    }
    if (is_too_deep) {
        throw atlas::validation_error("messages", "nested deeper than " + std::to_string(MAX_DEPTH) + " levels");
    }
    atlas_active()->gate().take_turn(request, req.should_stop);

    const atlas::phase_timer timer(&request, atlas::request_phase::history);
    const json               record = json::parse(atlas_active()->recorded_messages(request.session));
    json                     sent   = body.at("messages");
    body["messages"]                = join(record, sent);
    if (!record.empty()) {
        json fresh = json::array();
        append(fresh, sent, count_instructions(sent), sent.size());
        sent = std::move(fresh);
    }
    request.messages = safe_json_to_str(sent);
    return body;
}

void atlas_note_answer(atlas::request & request, const server_task_result_cmpl_final & result) {
    if (!request.messages.empty()) {
        request.answer_message = safe_json_to_str(result.oaicompat_msg.to_json_oaicompat());
    }
}

void atlas_record_history(atlas::request & request) {
    if (request.messages.empty() || request.answer_message.empty()) {
        return;
    }
    const atlas::phase_timer timer(&request, atlas::request_phase::history);

    std::string text = std::exchange(request.messages, "");
    text.pop_back(); // the closing bracket
    text += (text.size() > 1 ? "," : "") + request.answer_message + "]";
    if (request.options().history == atlas::history_keeper::client) {
        atlas_active()->gate().conversations().push({request.session, std::move(text)});
        return;
    }
    try {
        atlas_active()->record_messages(request.session, text);
    } catch (const atlas::error & error) {
        request.degrade(std::string("the exchange was not recorded: ") + error.what());
    }
}
