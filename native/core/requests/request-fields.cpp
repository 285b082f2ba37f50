// The fields of the `atlas` object: one table, by which it is validated and described.
#include "atlas-error.hpp"
#include "atlas-facts.h"
#include "atlas-request.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <string>

namespace atlas {

using json = nlohmann::ordered_json;

bool is_valid_id(const std::string & text) {
    const auto allowed = [](unsigned char c) {
        return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
               c == ':' || c == '-';
    };
    return !text.empty() && text.size() <= ATLAS_MAX_ID_LENGTH && std::all_of(text.begin(), text.end(), allowed);
}

namespace {

enum class field_kind { id, integer, choice };

struct field {
    const char *             name;
    field_kind               kind;
    int                      min; // of integers
    int                      max;
    std::vector<std::string> choices;
    const char *             help;

    void (*set)(request_options & options, const json & value); // value is valid
};

const std::array<field, 5> FIELDS = {{
    {"session_id",
     field_kind::id,
     0,
     0,
     {},
     "the session: a name for the conversation's state, made when it is first used",
     [](request_options & options, const json & value) { options.session_id = value.get<std::string>(); }},
    {"memory_layers",
     field_kind::integer,
     1,
     ATLAS_MAX_LAYER,
     {},
     "layers of the memory that the request may use, from the fastest; all there are without it",
     [](request_options & options, const json & value) { options.memory_layers = value.get<int>(); }},
    {"cache_strategy",
     field_kind::choice,
     0,
     0,
     {std::begin(CACHE_STRATEGY_NAMES), std::end(CACHE_STRATEGY_NAMES)},
     "by what the memory decides how long to keep what the request touches; adaptive without it",
     [](request_options & options, const json & value) {
         const auto & names = CACHE_STRATEGY_NAMES;
         options.strategy = (cache_strategy) (std::find(std::begin(names), std::end(names), value) - std::begin(names));
     }},
    {"batch_size",
     field_kind::integer,
     1,
     32,
     {},
     "sequences of this request (prompt array, n) that may hold slots at once; all without it",
     [](request_options & options, const json & value) { options.batch_size = value.get<int>(); }},
    {"history",
     field_kind::choice,
     0,
     0,
     {"client", "server"},
     "who puts the session's earlier messages before those sent; client without it",
     [](request_options & options, const json & value) {
         options.history = value == "server" ? history_keeper::server : history_keeper::client;
     }},
}};

std::string quoted_list(const std::vector<std::string> & names, const char * last, const char * quote) {
    std::string text;
    for (size_t i = 0; i < names.size(); i++) {
        text += i == 0 ? "" : i + 1 == names.size() ? last : ", ";
        text += quote + names[i] + quote;
    }
    return text;
}

// What is wrong with a value; empty: nothing.
std::string find_problem(const field & field, const json & value) {
    switch (field.kind) {
        case field_kind::id:
            return value.is_string() && is_valid_id(value.get_ref<const std::string &>())
                       ? ""
                       : "value must be a string of " ATLAS_ID_RULE;
        case field_kind::integer: {
            const std::string range = std::to_string(field.min) + " and " + std::to_string(field.max);
            if (!value.is_number_integer()) {
                return "value must be an integer between " + range;
            }
            // compared as JSON numbers, so that one beyond 64 bits is out of range instead of wrapped around
            return value < field.min || value > field.max ? "value must be between " + range : "";
        }
        case field_kind::choice: break;
    }
    const bool is_known = value.is_string() && std::find(field.choices.begin(), field.choices.end(),
                                                         value.get_ref<const std::string &>()) != field.choices.end();
    return is_known ? "" : "value must be " + quoted_list(field.choices, " or ", "\"");
}

json schema_of(const field & field) {
    json schema = {{"description", field.help}};
    switch (field.kind) {
        case field_kind::id:
            schema["type"]    = "string";
            schema["pattern"] = ATLAS_ID_PATTERN;
            break;
        case field_kind::integer:
            schema["type"]    = "integer";
            schema["minimum"] = field.min;
            schema["maximum"] = field.max;
            break;
        case field_kind::choice:
            schema["type"] = "string";
            schema["enum"] = field.choices;
            break;
    }
    return schema;
}

// What request::answer() writes.
json answer_schema() {
    const auto number = [](const char * help) {
        return json{{"type", "number"}, {"minimum", 0}, {"description", help}};
    };
    const auto count = [](const char * help) {
        return json{{"type", "integer"}, {"minimum", 0}, {"description", help}};
    };
    const auto nullable = [](const char * help) {
        return json{{"type", json::array({"string", "null"})}, {"description", help}};
    };
    json tiers = {{"type", "array"},
                  {"items", {{"type", "integer"}}},
                  {"description", "layers of the memory that the request could use"}};
    json moved = {{"type", "object"},
                  {"required", json::array({"what", "token", "text"})},
                  {"properties",
                   {{"what", {{"enum", json::array({"billing_line", "date", "time", "id", "tool_call", "history"})}}},
                    {"token", count("the first that differs from what the memory has")},
                    {"text", {{"type", "string"}, {"description", "of this request's prompt, around that token"}}}}},
                  {"description", "there only where reason is prefix_moved"}};
    return {
        {"type", "object"},
        {"required", json::array({"session_id", "cache_hit", "reused_tokens", "prompt_tokens", "layers_used",
                                  "overhead_ms", "degraded", "reason"})},
        {"properties",
         {
             {"session_id",
              nullable("as it was asked for; of X-Conversation-Id: that, or its hash where it is no valid id")},
             {"memory_layers", count("as it was asked for")},
             {"cache_hit",
              {{"type", "boolean"},
               {"description", "whether any token of the prompt was reused, of the slot's own or restored"}}},
             {"reused_tokens", count("tokens of the prompt that were not computed again")},
             {"prompt_tokens", count("tokens of the prompt")},
             {"layer", count("layer that state was restored from; 0: none")},
             {"layers_used", tiers},
             {"restore_ms", number("time in which that was put into the slot")},
             {"overhead_ms", number("time spent in ATLAS for this request")},
             {"degraded", {{"type", "boolean"}, {"description", "whether something asked for could not be had"}}},
             {"reason", nullable("why not, or why no layer gave more")},
             {"moved", moved},
         }},
    };
}

} // namespace

request_options parse_request_options(const std::string & text) {
    const json object = json::parse(text);
    if (!object.is_object()) {
        throw validation_error("atlas", "value must be an object");
    }
    request_options options;
    for (const auto & [key, value] : object.items()) {
        const auto found =
            std::find_if(FIELDS.begin(), FIELDS.end(), [&key = key](const field & each) { return key == each.name; });
        if (found == FIELDS.end()) {
            std::vector<std::string> names;
            for (const auto & each : FIELDS) {
                names.push_back(each.name);
            }
            throw validation_error("atlas." + key, "unknown field; known are " + quoted_list(names, " and ", ""));
        }
        const std::string problem = find_problem(*found, value);
        if (!problem.empty()) {
            throw validation_error("atlas." + key, problem);
        }
        found->set(options, value);
    }
    return options;
}

std::string request_schema_json() {
    json properties = json::object();
    for (const auto & each : FIELDS) {
        properties[each.name] = schema_of(each);
    }
    const json request = {{"type", "object"}, {"additionalProperties", false}, {"properties", properties}};
    return json{{"request", request}, {"answer", answer_schema()}}.dump();
}

} // namespace atlas
