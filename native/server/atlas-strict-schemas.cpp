#include "atlas-strict-schemas.h"

#include "atlas-error.hpp"
#include "atlas-llama-server.h"
#include "atlas-request.hpp"
#include "atlas-response-draft.h"
#include "atlas-runtime.hpp"
#include "server-common.h"
#include "server-http.h"
#include "server-task.h"

#include <string_view>

namespace atlas {

static void add(json & holder, const char * key, const json & value) {
    if (!holder.contains(key)) {
        holder[key] = value;
    }
}

static void add_nulls(json & holder, std::initializer_list<const char *> keys) {
    for (const char * key : keys) {
        add(holder, key, nullptr);
    }
}

static json * object_in(json & holder, const char * key) {
    return holder.contains(key) && holder.at(key).is_object() ? &holder.at(key) : nullptr;
}

static bool wants_usage_of(const json & body) {
    const json options = json_value(body, "stream_options", json());
    return options.is_object() && json_value(options, "include_usage", false);
}

strict_answer::strict_answer(const json & body) : wants_usage(wants_usage_of(body)) {}

void strict_answer::end(const server_task_result_cmpl_final & result) {
    n_reasoning = count_tokens(result.oaicompat_msg.reasoning_content);
    n_prompt    = result.n_prompt_tokens;
    n_cached    = result.n_prompt_tokens_cache;
}

//
// chat completions
//

void strict_answer::complete_chat_usage(json & usage) const {
    add(usage, "prompt_tokens_details", json::object());
    add(usage, "completion_tokens_details", json::object());
    if (json * details = object_in(usage, "prompt_tokens_details")) {
        add(*details, "audio_tokens", 0);
    }
    if (json * details = object_in(usage, "completion_tokens_details")) {
        add(*details, "reasoning_tokens", n_reasoning);
        add(*details, "audio_tokens", 0);
        add(*details, "accepted_prediction_tokens", 0);
        add(*details, "rejected_prediction_tokens", 0);
    }
}

static void complete_probabilities(json & choice) {
    add(choice, "logprobs", nullptr);
    if (json * probabilities = object_in(choice, "logprobs")) {
        add_nulls(*probabilities, {"content", "refusal"});
    }
}

// What to do with each choice.
template <typename T> static void for_choices(json & answer, const T & complete) {
    if (!answer.contains("choices") || !answer.at("choices").is_array()) {
        return;
    }
    json & choices = answer.at("choices");
    for (size_t i = 0; i < choices.size(); i++) {
        if (choices.at(i).is_object()) {
            complete(choices.at(i));
        }
    }
}

void strict_answer::complete_chat(json & answer) const {
    for_choices(answer, [](json & choice) {
        complete_probabilities(choice);
        if (json * message = object_in(choice, "message")) {
            add_nulls(*message, {"content", "refusal"});
            add(*message, "annotations", json::array());
        }
    });
    if (json * usage = object_in(answer, "usage")) {
        complete_chat_usage(*usage);
    }
    add(answer, "service_tier", "default");
}

void strict_answer::complete_chunk(json & chunk) const {
    for_choices(chunk, [](json & choice) {
        complete_probabilities(choice);
        json * delta = object_in(choice, "delta");
        if (delta != nullptr && delta->contains("role")) {
            add(*delta, "refusal", nullptr);
        }
    });
    if (json * usage = object_in(chunk, "usage")) {
        complete_chat_usage(*usage);
    } else if (wants_usage) {
        add(chunk, "usage", nullptr);
    }
    add(chunk, "service_tier", "default");
}

//
// messages
//

static void complete_block(json & block) {
    const std::string type = json_value(block, "type", std::string());
    if (type == "text") {
        add(block, "citations", nullptr);
    } else if (type == "thinking") {
        add(block, "signature", "");
    } else if (type == "tool_use") {
        add(block, "input", json::object());
        add(block, "caller", json::object({{"type", "direct"}}));
    }
}

void strict_answer::complete_message(json & message) const {
    if (message.contains("content") && message.at("content").is_array()) {
        json & content = message.at("content");
        for (size_t i = 0; i < content.size(); i++) {
            if (content.at(i).is_object()) {
                complete_block(content.at(i));
            }
        }
    }
    add_nulls(message, {"container", "stop_details", "stop_reason", "stop_sequence"});
    if (json * usage = object_in(message, "usage")) {
        add(*usage, "cache_creation_input_tokens", 0);
        add(*usage, "cache_read_input_tokens", 0);
        add(*usage, "service_tier", "standard");
        add_nulls(*usage, {"cache_creation", "inference_geo", "output_tokens_details", "server_tool_use"});
    }
}

void strict_answer::complete_message_end(json & event) const {
    if (json * delta = object_in(event, "delta")) {
        add_nulls(*delta, {"container", "stop_details", "stop_reason", "stop_sequence"});
    }
    if (json * usage = object_in(event, "usage")) {
        add(*usage, "input_tokens", n_prompt - n_cached);
        add(*usage, "cache_creation_input_tokens", 0);
        add(*usage, "cache_read_input_tokens", n_cached);
        add_nulls(*usage, {"output_tokens_details", "server_tool_use"});
    }
}

//
// both
//

void strict_answer::complete(json & piece) const {
    for (size_t i = 0; piece.is_array() && i < piece.size(); i++) {
        json & each = piece.at(i);
        complete(each.is_object() && each.contains("data") ? each.at("data") : each);
    }
    if (!piece.is_object()) {
        return;
    }
    const std::string kind = json_value(piece, piece.contains("object") ? "object" : "type", std::string());
    if (kind == "chat.completion") {
        complete_chat(piece);
    } else if (kind == "chat.completion.chunk") {
        complete_chunk(piece);
    } else if (kind == "message") {
        complete_message(piece);
    } else if (json * message = object_in(piece, "message"); kind == "message_start" && message != nullptr) {
        complete_message(*message);
    } else if (json * block = object_in(piece, "content_block"); kind == "content_block_start" && block != nullptr) {
        complete_block(*block);
    } else if (kind == "message_delta") {
        complete_message_end(piece);
    }
}

} // namespace atlas

//
// requests
//

static bool is_strict(const server_http_req & req) {
    using atlas::request_route;
    const auto & active = atlas_active();
    const auto   route  = atlas::route_of(req.path);
    return active && active->config()->strict_schemas &&
           (route == request_route::chat || route == request_route::messages || route == request_route::responses);
}

static bool is_given(const json & body, const char * field) {
    return body.contains(field) && !body.at(field).is_null();
}

static void require(const json & body, const char * field, const char * kind, bool is_right) {
    if (!is_right) {
        throw atlas::validation_error(
            field, std::string(is_given(body, field) ? "value must be " : "it is missing: it must be ") + kind +
                       ", as the server has --atlas-strict-schemas");
    }
}

// What upstream ignores in a chat completion, and what would be another answer.
static void refuse_what_is_ignored(const json & body) {
    for (const char * field : {"functions", "function_call", "audio", "web_search_options"}) {
        if (is_given(body, field)) {
            throw atlas::validation_error(field, "this server does not support it");
        }
    }
    const json modalities = json_value(body, "modalities", json());
    if (!modalities.is_null() && modalities != json::array({"text"})) {
        throw atlas::validation_error("modalities", "this server answers text only");
    }
}

// Of a tool, or of a choice of one, in OpenAI's form or in Anthropic's; empty: it has none.
static std::string name_of(const json & tool) {
    if (!tool.is_object()) {
        return "";
    }
    const json function = json_value(tool, "function", json());
    return json_value(function.is_object() ? function : tool, "name", std::string());
}

// Upstream knows no choice of a tool: those that are not wanted are left out.
static void leave_tools(json & body, const json & wanted) {
    const json given  = json_value(body, "tools", json::array());
    json       chosen = json::array();
    for (size_t i = 0; i < wanted.size(); i++) {
        const std::string name    = name_of(wanted.at(i));
        const size_t      n_found = chosen.size();
        for (size_t k = 0; k < given.size(); k++) {
            if (!name.empty() && name_of(given.at(k)) == name) {
                chosen.push_back(given.at(k));
            }
        }
        if (chosen.size() == n_found) {
            throw atlas::validation_error("tool_choice", "there is no tool '" + name + "' among tools");
        }
    }
    body["tools"] = chosen;
}

static void choose_tools(json & body) {
    const json        choice = json_value(body, "tool_choice", json());
    const std::string type   = choice.is_object() ? json_value(choice, "type", std::string()) : "";
    if (type == "tool") { // Anthropic's, which upstream takes for any
        leave_tools(body, json::array({choice}));
    } else if (type == "function") {
        leave_tools(body, json::array({choice}));
        body["tool_choice"] = "required";
    } else if (type == "allowed_tools" && atlas::object_in(body.at("tool_choice"), "allowed_tools") != nullptr) {
        const json & allowed = choice.at("allowed_tools");
        leave_tools(body, json_value(allowed, "tools", json::array()));
        body["tool_choice"] = json_value(allowed, "mode", std::string("auto"));
    }
}

// Of a chat completion. Upstream takes what it does not know for "auto".
static void check_choice(const json & body) {
    const json choice = json_value(body, "tool_choice", json());
    if (!choice.is_null() && !choice.is_string()) {
        throw atlas::validation_error("tool_choice", "this server has functions only: give \"none\", \"auto\", "
                                                     "\"required\", a function or allowed_tools");
    }
}

void atlas_begin_strict(const server_http_req & req, json & body) {
    if (!body.is_object() || !is_strict(req)) {
        return;
    }
    require(body, "model", "a text", body.contains("model") && body.at("model").is_string());
    const auto route = atlas::route_of(req.path);
    if (route == atlas::request_route::responses) {
        return; // whose answers are complete anyway
    }
    require(body, "messages", "an array of messages",
            body.contains("messages") && body.at("messages").is_array() && !body.at("messages").empty());
    choose_tools(body);
    if (route == atlas::request_route::messages) {
        require(body, "max_tokens", "a whole number",
                body.contains("max_tokens") && body.at("max_tokens").is_number_integer());
    } else {
        refuse_what_is_ignored(body);
        check_choice(body);
    }
    req.atlas->strict = std::make_shared<atlas::strict_answer>(body);
}

//
// errors
//

// The field that a validation_error() names; null: it names none.
static json param_of(const std::string & message) {
    static constexpr std::string_view BEFORE = "Validation error in field '";

    const size_t end      = message.find('\'', BEFORE.size());
    const bool   is_named = message.compare(0, BEFORE.size(), BEFORE) == 0 && end != std::string::npos;
    return is_named ? json(message.substr(BEFORE.size(), end - BEFORE.size())) : json();
}

static const char * anthropic_type(int status) {
    switch (status) {
        case 401: return "authentication_error";
        case 403: return "permission_error";
        case 404: return "not_found_error";
        case 429: return "rate_limit_error";
        case 503: return "overloaded_error";
        default:  return status < 500 ? "invalid_request_error" : "api_error";
    }
}

void atlas_complete_error(const server_http_req & req, server_http_res & res) {
    if (res.status < 400 || res.is_stream() || !is_strict(req)) {
        return;
    }
    json answer = json::parse_no_throw(res.data);
    if (!answer.is_object() || !answer.contains("error") || !answer.at("error").is_object()) {
        return; // of a plugin
    }
    json & error = answer.at("error");
    if (atlas::route_of(req.path) == atlas::request_route::messages) {
        error["type"]        = anthropic_type(res.status);
        answer["type"]       = "error";
        answer["request_id"] = req.atlas ? json(req.atlas->request_id) : json();
    } else if (!error.contains("param")) {
        error["param"] = param_of(json_value(error, "message", std::string()));
    }
    res.data = safe_json_to_str(answer);
}

bool atlas_wants_error(const server_http_req & req) { return is_strict(req); }
