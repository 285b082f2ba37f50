#include "atlas-response-draft.h"

#include "atlas-error.hpp"
#include "atlas-facts.h"
#include "atlas-request.hpp"
#include "atlas-server-state.h"
#include "common.h"
#include "server-common.h"
#include "server-task.h"

#include <algorithm>
#include <ctime>
#include <utility>

namespace atlas {

//
// the request
//

static size_t count_characters(const std::string & text) {
    return std::count_if(text.begin(), text.end(), [](unsigned char c) { return (c & 0xc0) != 0x80; });
}

void check_metadata(const json & body) {
    const json given = json_value(body, "metadata", json());
    if (given.is_null()) {
        return;
    }
    bool is_right = given.is_object() && given.size() <= ATLAS_MAX_METADATA;
    for (const auto & [key, value] : is_right ? given.items() : json::object().items()) {
        is_right = is_right && count_characters(key) <= ATLAS_MAX_METADATA_KEY && value.is_string() &&
                   count_characters(value.get<std::string>()) <= ATLAS_MAX_METADATA_VALUE;
    }
    if (!is_right) {
        throw validation_error("metadata", "value must be an object of up to " + std::to_string(ATLAS_MAX_METADATA) +
                                               " texts of up to " + std::to_string(ATLAS_MAX_METADATA_VALUE) +
                                               " characters, by names of up to " +
                                               std::to_string(ATLAS_MAX_METADATA_KEY));
    }
}

// What this server cannot do, and must not seem to have done.
static void check_supported(const json & body) {
    if (body.contains("prompt") && !body.at("prompt").is_null()) {
        throw validation_error("prompt", "this server does not support it");
    }
    const json truncation = json_value(body, "truncation", json());
    if (!truncation.is_null() && truncation != "disabled" && truncation != "auto") {
        throw validation_error("truncation", "value must be \"disabled\" or \"auto\"");
    }
    const json include = json_value(body, "include", json::array());
    for (size_t i = 0; include.is_array() && i < include.size(); i++) {
        if (include.at(i) == "message.output_text.logprobs") {
            throw validation_error("include", "this server answers no logprobs here: ask /v1/chat/completions");
        }
    }
}

// The input as items, of which a text is one message.
static json items_of(const json & input) {
    if (!input.is_string()) {
        return input;
    }
    json part;
    part["type"] = "input_text";
    part["text"] = input;
    json message;
    message["type"]    = "message";
    message["role"]    = "user";
    message["content"] = json::array({part});
    return json::array({message});
}

static json with_format(json text) {
    if (!text.is_object()) {
        text = json::object();
    }
    if (!text.contains("format")) {
        text["format"]["type"] = "text";
    }
    return text;
}

static json with_summary(json reasoning) {
    json whole = {{"effort", nullptr}, {"summary", nullptr}};
    for (const auto & [key, value] : reasoning.is_object() ? reasoning.items() : json::object().items()) {
        whole[key] = value;
    }
    return whole;
}

static json described(json tools) {
    if (!tools.is_array()) {
        return json::array();
    }
    for (size_t i = 0; i < tools.size(); i++) {
        json & tool = tools.at(i);
        if (!tool.is_object() || json_value(tool, "type", std::string()) != "function") {
            continue;
        }
        for (const char * key : {"description", "parameters"}) {
            if (!tool.contains(key)) {
                tool[key] = nullptr;
            }
        }
        if (!tool.contains("strict")) {
            tool["strict"] = true; // as upstream takes it
        }
    }
    return tools;
}

json given_or(const json & body, const char * key, const json & otherwise) {
    return body.contains(key) && !body.at(key).is_null() ? body.at(key) : otherwise;
}

static bool asks_for_background(const json & body) {
    const json asked = json_value(body, "background", json());
    if (!asked.is_null() && !asked.is_boolean()) {
        throw validation_error("background", "value must be true or false");
    }
    return asked.is_boolean() && asked.get<bool>();
}

response_draft::response_draft(const json & body, const response_defaults & defaults)
    : id("resp_" + random_string()), input(items_of(json_value(body, "input", json::array()))),
      previous_id(json_value(body, "previous_response_id", std::string())), conversation(conversation_of(body)),
      created_at(std::time(nullptr)), has_instructions(body.contains("instructions")),
      in_background(asks_for_background(body)) {
    check_metadata(body);
    check_supported(body);
    if (!conversation.empty() && !previous_id.empty()) {
        throw validation_error("conversation",
                               "it cannot be given together with 'previous_response_id': go on from one "
                               "of them");
    }
    const json none;
    for (const char * key : {"instructions", "max_output_tokens", "max_tool_calls", "safety_identifier",
                             "prompt_cache_key", "previous_response_id"}) {
        echo[key] = given_or(body, key, none);
    }
    echo["error"]               = nullptr;
    echo["incomplete_details"]  = nullptr;
    echo["tools"]               = described(given_or(body, "tools", none));
    echo["tool_choice"]         = given_or(body, "tool_choice", "auto");
    echo["parallel_tool_calls"] = given_or(body, "parallel_tool_calls", true);
    echo["text"]                = with_format(given_or(body, "text", none));
    echo["reasoning"]           = with_summary(given_or(body, "reasoning", none));
    echo["truncation"]          = given_or(body, "truncation", "disabled");
    echo["temperature"]         = given_or(body, "temperature", defaults.temperature);
    echo["top_p"]               = given_or(body, "top_p", defaults.top_p);
    echo["presence_penalty"]    = given_or(body, "presence_penalty", defaults.presence_penalty);
    echo["frequency_penalty"]   = given_or(body, "frequency_penalty", defaults.frequency_penalty);
    echo["top_logprobs"]        = given_or(body, "top_logprobs", 0);
    echo["service_tier"]        = "default";
    echo["background"]          = in_background;
    echo["metadata"]            = given_or(body, "metadata", json::object());
    if (body.contains("user")) {
        echo["user"] = body.at("user");
    }
    if (!conversation.empty()) {
        echo["conversation"]["id"] = conversation;
    }
}

std::string response_draft::conversation_of(const json & body) {
    const json given = body.is_object() ? json_value(body, "conversation", json()) : json();
    if (given.is_null()) {
        return "";
    }
    const json id = given.is_object() ? json_value(given, "id", json()) : given;
    if (!id.is_string() || !is_valid_id(id.get<std::string>())) {
        throw validation_error("conversation",
                               "value must be the id of a conversation, or an object with its id: 1-128 "
                               "of A-Z a-z 0-9 . _ : -");
    }
    return id.get<std::string>();
}

static bool is_reference(const json & item) {
    if (!item.is_object()) {
        return false;
    }
    const std::string type = json_value(item, "type", std::string());
    return type == "item_reference" || (type.empty() && item.contains("id") && !item.contains("role"));
}

json response_draft::references() const {
    json ids = json::array();
    for (size_t i = 0; input.is_array() && i < input.size(); i++) {
        if (is_reference(input.at(i))) {
            ids.push_back(json_value(input.at(i), "id", std::string()));
        }
    }
    return ids;
}

void response_draft::put_referenced(const json & items) {
    size_t next = 0;
    for (size_t i = 0; input.is_array() && i < input.size(); i++) {
        if (is_reference(input.at(i))) {
            input.at(i) = items.at(next++);
        }
    }
}

json response_draft::behind_earlier(const json & messages) const {
    const size_t n_instructions = has_instructions ? 1 : 0;
    const bool   is_empty       = messages.size() <= n_instructions;
    if (is_empty &&
        (earlier.empty() || json_value(earlier.at(earlier.size() - 1), "role", std::string()) == "assistant")) {
        throw validation_error("input",
                               "there is nothing to answer: the conversation ends with an answer, or is empty");
    }
    json joined = json::array();
    for (size_t i = 0; i < n_instructions; i++) {
        joined.push_back(messages.at(i));
    }
    for (size_t i = 0; i < earlier.size(); i++) {
        joined.push_back(earlier.at(i));
    }
    for (size_t i = n_instructions; i < messages.size(); i++) {
        joined.push_back(messages.at(i));
    }
    return joined;
}

//
// the answer
//

size_t count_tokens(const std::string & text) {
    const llama_vocab * vocab = atlas_state().vocab;
    return text.empty() || vocab == nullptr ? 0 : common_tokenize(vocab, text, false, true).size();
}

void response_draft::end(const server_task_result_cmpl_final & result) {
    is_cut_off         = result.stop == STOP_TYPE_LIMIT;
    n_reasoning_tokens = count_tokens(result.oaicompat_msg.reasoning_content);
}

void response_draft::complete(json & response) const {
    const bool is_final    = json_value(response, "status", std::string()) == "completed";
    response["id"]         = id;
    response["created_at"] = created_at;
    for (const auto & [key, value] : echo.items()) {
        response[key] = value;
    }
    response["store"] = is_stored;
    if (!is_final) {
        response["completed_at"] = nullptr;
        response["output"]       = json::array();
        response["usage"]        = nullptr;
        response["model"]        = model;
        return;
    }
    response["completed_at"] = is_cut_off ? json() : json_value(response, "completed_at", json(std::time(nullptr)));
    if (is_cut_off) {
        response["status"]             = "incomplete";
        response["incomplete_details"] = json::object({{"reason", "max_output_tokens"}});
    }
    response["usage"]["output_tokens_details"] = json::object({{"reasoning_tokens", n_reasoning_tokens}});
}

json response_draft::take_deferred() {
    json body = json::parse(deferred);
    deferred.clear();
    deferred.shrink_to_fit();
    return body;
}

json response_draft::unfinished(const char * status, const json & error) const {
    json response = {{"object", "response"}, {"status", status}};
    complete(response);
    response["error"] = error;
    return response;
}

// The first event of a response in the background, and that it is queued, were sent when it was taken in.
static const int64_t N_SENT_BEFORE = 2;

void response_draft::number_events(json & piece) {
    if (!in_background || !piece.is_array()) {
        events.number(piece, 0);
        return;
    }
    json whole = json::array();
    for (size_t i = 0; i < piece.size(); i++) {
        if (json_value(piece.at(i), "event", std::string()) != "response.created") {
            whole.push_back(piece.at(i));
        }
    }
    piece = std::move(whole);
    events.number(piece, N_SENT_BEFORE);
}

void response_draft::complete_events(json & piece) {
    if (!piece.is_array()) {
        return;
    }
    for (size_t i = 0; i < piece.size(); i++) {
        json & event = piece.at(i);
        if (!event.contains("data") || !event.at("data").contains("response")) {
            continue;
        }
        json & data = event.at("data");
        complete(data.at("response"));
        if (json_value(data, "type", std::string()) == "response.completed" && is_cut_off) {
            event["event"] = "response.incomplete";
            data["type"]   = "response.incomplete";
        }
    }
    events.complete(piece);
}

static bool is_final(const json & response) {
    const std::string status = response.is_object() ? json_value(response, "status", std::string()) : "";
    return status == "completed" || status == "incomplete";
}

json * response_draft::final_in(json & piece) {
    if (!piece.is_array()) {
        return is_final(piece) ? &piece : nullptr;
    }
    for (size_t i = piece.size(); i > 0; i--) {
        json & event = piece.at(i - 1);
        if (event.is_object() && event.contains("data") && event.at("data").is_object() &&
            event.at("data").contains("response") && is_final(event.at("data").at("response"))) {
            return &event.at("data").at("response");
        }
    }
    return nullptr;
}

} // namespace atlas
