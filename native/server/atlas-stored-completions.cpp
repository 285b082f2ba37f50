#include "atlas-stored-completions.h"

#include "atlas-error.hpp"
#include "atlas-llama-server.h"
#include "atlas-log.hpp"
#include "atlas-request.hpp"
#include "atlas-runtime.hpp"
#include "atlas-server-state.h"
#include "server-common.h"
#include "server-task.h"

#include <utility>

namespace atlas {

//
// the request
//

completion_draft::completion_draft(const json & body, const response_defaults & defaults,
                                   const std::string & request_id)
    : asked(json_value(body, "messages", json::array())), schema(json::object()) {
    check_metadata(body);
    echo["metadata"]   = given_or(body, "metadata", json::object());
    echo["request_id"] = request_id;
    const json none;
    for (const char * key : {"tool_choice", "tools", "response_format", "seed"}) {
        echo[key] = given_or(body, key, none);
    }
    echo["temperature"]       = given_or(body, "temperature", defaults.temperature);
    echo["top_p"]             = given_or(body, "top_p", defaults.top_p);
    echo["presence_penalty"]  = given_or(body, "presence_penalty", defaults.presence_penalty);
    echo["frequency_penalty"] = given_or(body, "frequency_penalty", defaults.frequency_penalty);
    echo["input_user"]        = given_or(body, "user", none);
}

//
// the answer
//

static std::string text_of(const json & holder, const char * key) {
    return holder.contains(key) && holder.at(key).is_string() ? holder.at(key).get<std::string>() : "";
}

void completion_draft::choice::add_call(const json & piece) {
    const json at = piece.contains("index") ? piece.at("index") : json();
    const auto n  = at.is_number_integer() ? at.get<int64_t>() : 0;
    if (n < 0 || n > (int64_t) calls.size()) {
        return; // no model leaves one out, and a plugin's number may be any
    }
    if (n == (int64_t) calls.size()) {
        calls.push_back(json::object({{"id", ""}, {"type", "function"}}));
        arguments.emplace_back();
    }
    json & call = calls[n];
    for (const char * key : {"id", "type"}) {
        if (const auto text = text_of(piece, key); !text.empty()) {
            call[key] = text;
        }
    }
    if (piece.contains("function") && piece.at("function").is_object()) {
        if (const auto name = text_of(piece.at("function"), "name"); !name.empty()) {
            call["function"]["name"] = name;
        }
        arguments[n] += text_of(piece.at("function"), "arguments");
    }
}

void completion_draft::choice::add(const json & piece) {
    if (piece.contains("finish_reason") && !piece.at("finish_reason").is_null()) {
        finish_reason = piece.at("finish_reason");
    }
    const json probabilities = piece.contains("logprobs") ? piece.at("logprobs") : json();
    if (probabilities.is_object() && probabilities.contains("content") && probabilities.at("content").is_array()) {
        logprobs = logprobs.is_array() ? logprobs : json::array();
        logprobs.insert(probabilities.at("content"));
    }
    if (!piece.contains("delta") || !piece.at("delta").is_object()) {
        return;
    }
    const json & delta = piece.at("delta");
    if (const auto given = text_of(delta, "role"); !given.empty()) {
        role = given;
    }
    content += text_of(delta, "content");
    reasoning += text_of(delta, "reasoning_content");
    refusal += text_of(delta, "refusal");
    if (delta.contains("tool_calls") && delta.at("tool_calls").is_array()) {
        for (size_t i = 0; i < delta.at("tool_calls").size(); i++) {
            add_call(delta.at("tool_calls").at(i));
        }
    }
}

// As upstream answers it when it is not streamed.
json completion_draft::choice::message() const {
    json message;
    message["role"]    = role;
    message["content"] = content;
    if (!reasoning.empty()) {
        message["reasoning_content"] = reasoning;
    }
    if (!refusal.empty()) {
        message["refusal"] = refusal;
    }
    for (size_t i = 0; i < calls.size(); i++) {
        json call                     = calls[i];
        call["function"]["arguments"] = arguments[i];
        message["tool_calls"]         = message.contains("tool_calls") ? message.at("tool_calls") : json::array();
        message["tool_calls"].push_back(call);
    }
    return message;
}

json completion_draft::choice::joined(int index) const {
    json whole;
    whole["finish_reason"] = finish_reason;
    whole["index"]         = index;
    whole["message"]       = message();
    if (logprobs.is_array()) {
        whole["logprobs"]["content"] = logprobs;
    }
    return whole;
}

void completion_draft::end(const server_task_result_cmpl_final & result) {
    schema.end(result);
    usage = {
        {"completion_tokens", result.n_decoded},
        {"prompt_tokens", result.n_prompt_tokens},
        {"total_tokens", result.n_decoded + result.n_prompt_tokens},
        {"prompt_tokens_details", json::object({{"cached_tokens", result.n_prompt_tokens_cache}})},
    };
}

void completion_draft::add(const json & chunks) {
    for (size_t i = 0; chunks.is_array() && i < chunks.size(); i++) {
        const json & chunk = chunks.at(i);
        if (!chunk.is_object() || !chunk.contains("choices") || !chunk.at("choices").is_array()) {
            continue;
        }
        if (head.is_null()) {
            head = chunk;
        }
        for (size_t k = 0; k < chunk.at("choices").size(); k++) {
            const json & piece = chunk.at("choices").at(k);
            if (piece.is_object()) {
                choices[json_value(piece, "index", 0)].add(piece);
            }
        }
    }
}

json completion_draft::joined() const {
    json whole;
    whole["choices"] = json::array();
    for (const auto & [index, choice] : choices) {
        whole["choices"].push_back(choice.joined(index));
    }
    for (const char * key : {"created", "model", "system_fingerprint"}) {
        whole[key] = json_value(head, key, json());
    }
    whole["object"] = "chat.completion";
    whole["usage"]  = usage;
    whole["id"]     = json_value(head, "id", json());
    return whole;
}

json completion_draft::kept(json answer) const {
    if (!answer.is_object()) {
        return answer; // of a plugin; what keeps completions says so
    }
    for (const char * key : {"atlas", "timings", "__verbose"}) {
        answer.erase(key);
    }
    schema.complete(answer);
    for (const auto & [key, value] : echo.items()) {
        answer[key] = value;
    }
    return answer;
}

} // namespace atlas

//
// keeping it
//

static void note_not_kept(atlas::request & request, const std::string & why) {
    const std::string told = "the chat completion was not kept: " + why;
    atlas::logf(atlas::LogLevel::WARN, "Request %s: %s", request.request_id.c_str(), told.c_str());
    request.degrade(told);
}

void atlas_begin_completion(atlas::request & request, const json & body) {
    if (!body.is_object() || !body.contains("store") || body.at("store") != true) {
        return;
    }
    auto draft = std::make_shared<atlas::completion_draft>(body, atlas_state().response_defaults, request.request_id);
    const std::string off =
        request.is_plugins ? "requests of plugins leave no trace" : atlas_active()->why_not_stored();
    if (off.empty()) {
        request.completion = std::move(draft);
    } else {
        note_not_kept(request, off);
    }
}

static void keep(atlas::request & request, const json & completion, json * told) {
    const atlas::phase_timer timer(&request, atlas::request_phase::history);

    const auto draft = std::exchange(request.completion, nullptr);
    try {
        atlas_active()->keep_completion(request.tenant, safe_json_to_str(draft->messages()),
                                        safe_json_to_str(draft->kept(completion)));
    } catch (const atlas::error & error) {
        note_not_kept(request, error.what());
        if (told != nullptr) {
            (*told)["atlas"] = json::parse(request.answer());
        }
    }
}

// What the client gets the `atlas` object in; nullptr: it gets none.
static json * holder_of_atlas(json & answer) {
    if (answer.is_object()) {
        return answer.contains("atlas") ? &answer : nullptr;
    }
    for (size_t i = answer.is_array() ? answer.size() : 0; i > 0; i--) {
        json & chunk = answer.at(i - 1);
        if (chunk.is_object() && chunk.contains("atlas")) {
            return &chunk;
        }
    }
    return nullptr;
}

void atlas_keep_chunks(atlas::request & request, json & chunks, bool is_last) {
    if (!request.completion) {
        return;
    }
    request.completion->add(chunks);
    if (is_last) {
        keep(request, request.completion->joined(), holder_of_atlas(chunks));
    }
}

void atlas_keep_completion(atlas::request & request, json & answer) {
    if (request.completion) {
        keep(request, answer, holder_of_atlas(answer));
    }
}
