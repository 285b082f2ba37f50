#include "atlas-history.h"

#include "atlas-error.hpp"
#include "atlas-exact-prompt.h"
#include "atlas-llama-server.h"
#include "atlas-request-admission.hpp"
#include "atlas-response-draft.h"
#include "atlas-runtime.hpp"
#include "chat.h"
#include "server-common.h"
#include "server-http.h"
#include "server-task.h"

#include <algorithm>
#include <string>
#include <utility>

// Deeper than any message. It is far below MAX_JSON_DEPTH, as a record does not stay alone: others are around it when it is
// stored, loaded and handed to Python, whose parser ends near 1,000 levels in all. One record that it refused would hold up
// those of all other sessions in the queue.
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

// Empty for what is no message; upstream refuses it.
static std::string role_of(const json & message) {
    return message.is_object() ? json_value(message, "role", std::string()) : "";
}

static bool is_instruction(const json & message) {
    const std::string role = role_of(message);
    return role == "system" || role == "developer";
}

// How many messages at the beginning are instructions.
static size_t count_instructions(const json & messages) {
    size_t n = 0;
    while (n < messages.size() && is_instruction(messages.at(n))) {
        n++;
    }
    return n;
}

// Upstream would go on with the last answer of the record where nothing comes behind it, or with what the user said.
static void check_there_is_a_question(const json & body) {
    const json & sent        = body.at("messages");
    bool         is_question = false;
    for (size_t i = 0; i < sent.size(); i++) {
        is_question |= !is_instruction(sent.at(i)) && role_of(sent.at(i)) != "assistant";
    }
    if (!is_question) {
        throw atlas::validation_error("messages",
                                      "there is nothing to answer: with \"history\": \"server\" one message "
                                      "at least must be of the user or of a tool");
    }
    const bool continues =
        body.contains("continue_final_message") &&
        common_chat_continuation_parse(body.at("continue_final_message")) != COMMON_CHAT_CONTINUATION_NONE;
    if (continues && role_of(sent.at(sent.size() - 1)) != "assistant") {
        throw atlas::validation_error("continue_final_message", "the last message is not one of the assistant");
    }
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

// Messages from `begin` on as a JSON array.
static std::string text_of_array(const json & messages, size_t begin, size_t end) {
    std::string text = "[";
    for (size_t i = begin; i < end; i++) {
        text += (i > begin ? "," : "") + safe_json_to_str(messages.at(i));
    }
    return text + "]";
}

// Notes what is to be recorded of what was sent. A message that the answer goes on from becomes one with it.
static void note_sent(atlas::request & request, const json & sent, size_t begin) {
    size_t end = sent.size();
    if (end > begin && role_of(sent.at(end - 1)) == "assistant" &&
        json_value(sent.at(end - 1), "tool_calls", json()).empty()) {
        request.answer_begun = safe_json_to_str(sent.at(--end));
    }
    request.messages = text_of_array(sent, begin, end);
}

common_json atlas_put_history(const server_http_req & req, common_json body) {
    if (!req.atlas || !req.atlas->options().session_id || !body.contains("messages") ||
        !body.at("messages").is_array()) {
        return body;
    }
    auto &     request     = *req.atlas;
    const bool is_too_deep = is_deeper_than(body.at("messages"), MAX_DEPTH);
    if (request.response && request.response->is_of_conversation()) {
        if (is_too_deep) {
            throw atlas::validation_error("input", "nested deeper than " + std::to_string(MAX_DEPTH) + " levels");
        }
        body["messages"] = request.response->behind_earlier(body.at("messages"));
        return body; // what was said is kept with the response
    }
    if (request.options().history == atlas::history_keeper::client) {
        const atlas::phase_timer timer(&request, atlas::request_phase::history);
        if (!is_too_deep && atlas_active()->records_clients()) {
            note_sent(request, body.at("messages"), 0);
        }
        return body;
    }
    if (is_too_deep) {
        throw atlas::validation_error("messages", "nested deeper than " + std::to_string(MAX_DEPTH) + " levels");
    }
    check_there_is_a_question(body);
    atlas_active()->gate().lock_session(request, req.should_stop);

    const atlas::phase_timer timer(&request, atlas::request_phase::history);
    const auto               known  = atlas_active()->recorded_messages(request.session);
    const json               record = json::parse(known.messages);
    const json               sent   = body.at("messages");
    body["messages"]                = join(record, sent);
    if (!known.degraded.empty()) {
        request.degrade(known.degraded);
    }
    note_sent(request, sent, record.empty() ? 0 : count_instructions(sent));
    request.keeps_answer = true;
    atlas_set_answered(request, known.answers);
    return body;
}

// The answer's message as its client gets it.
static common_chat_msg message_of(const server_task_result_cmpl_final & result) {
    common_chat_msg message = result.oaicompat_msg;
    if (message.empty()) { // as upstream answers then
        message.role    = "assistant";
        message.content = result.content;
    }
    if (result.res_type == TASK_RESPONSE_TYPE_OAI_RESP) {
        for (auto & call : message.tool_calls) {
            call.id = "call_" + call.id; // which results of the call will name
        }
    }
    return message;
}

// Templates that take arguments apart would refuse, from then on, every turn of a conversation with such a call.
static bool has_broken_call(const common_chat_msg & message) {
    return std::any_of(message.tool_calls.begin(), message.tool_calls.end(),
                       [](const auto & call) { return json::parse_no_throw(call.arguments).is_discarded(); });
}

// The text of a message's content as upstream joins its parts.
static std::string content_of(const json & message) {
    static const std::string BETWEEN_PARTS = "\n\n";

    const json content = json_value(message, "content", json());
    if (!content.is_array()) {
        return content.is_string() ? content.get<std::string>() : "";
    }
    std::string text;
    for (size_t i = 0; i < content.size(); i++) {
        text += (text.empty() ? "" : BETWEEN_PARTS) + json_value(content.at(i), "text", std::string());
    }
    return text;
}

static bool ends_with(const std::string & text, const std::string & end) {
    return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// One message of what the client began and the answer that goes on from it. The answer has the beginning, in the fields of
// its format, if the prompt ended with it: upstream parses both together.
static json continued(json begun, json answer, const std::string & prompt_end) {
    const std::string content   = content_of(begun);
    const std::string reasoning = json_value(begun, "reasoning_content", std::string());
    const bool is_in_it = (content + reasoning).empty() || (!content.empty() && ends_with(prompt_end, content)) ||
                          (!reasoning.empty() && ends_with(prompt_end, reasoning));
    if (is_in_it) {
        begun.erase("reasoning_content");
    } else {
        answer["content"] = content + answer.at("content").get<std::string>();
    }
    for (const auto & [key, value] : answer.items()) {
        begun[key] = value;
    }
    return begun;
}

void atlas_note_answer(atlas::request & request, const server_task_result_cmpl_final & result) {
    if (request.messages.empty()) {
        return;
    }
    const common_chat_msg message = message_of(result);
    if (has_broken_call(message)) {
        request.messages.clear();
        if (request.options().history == atlas::history_keeper::server) {
            request.degrade(
                "the exchange was not recorded: the arguments of its tool call are no JSON, as where max_tokens cuts "
                "them off");
        }
        return;
    }
    json answer = message.to_json_oaicompat();
    if (!request.answer_begun.empty()) {
        answer = continued(json::parse(request.answer_begun), std::move(answer),
                           result.generation_params.chat_parser_params.generation_prompt);
    }
    request.answer_message = safe_json_to_str(answer);
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
        const std::string degraded =
            atlas_active()->record_messages(request.session, text, atlas_exact_answer_of(request));
        if (!degraded.empty()) {
            request.degrade(degraded);
        }
    } catch (const atlas::error & error) {
        request.degrade(std::string("the exchange was not recorded: ") + error.what());
    }
}
