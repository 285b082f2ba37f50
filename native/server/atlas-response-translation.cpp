// What a body on /v1/responses is changed into, for upstream's converter to take it.
#include "atlas-error.hpp"
#include "atlas-response-draft.h"
#include "server-common.h"

#include <string>

namespace atlas {

// A message may leave out its type, as OpenAI's clients do; upstream wants it of the model's own.
static void name_types(json & body) {
    if (!body.contains("input") || !body.at("input").is_array()) {
        return;
    }
    json & input = body.at("input");
    for (size_t i = 0; i < input.size(); i++) {
        json & item = input.at(i);
        if (item.is_object() && item.contains("role") && !item.contains("type")) {
            item["type"] = "message";
        }
    }
}

static void move_format(json & body) {
    const json text   = json_value(body, "text", json());
    const json format = text.is_object() ? json_value(text, "format", json()) : json();
    body.erase("text");
    if (!format.is_object() || body.contains("response_format")) {
        return;
    }
    const std::string type = json_value(format, "type", std::string());
    if (type == "json_schema") {
        json schema = format;
        schema.erase("type");
        body["response_format"]["type"]        = type;
        body["response_format"]["json_schema"] = schema;
    } else {
        body["response_format"]["type"] = type;
    }
}

static bool is_named(const json & tool, const std::string & name) {
    return tool.is_object() && json_value(tool, "name", std::string()) == name;
}

// Upstream takes no choice but a word: of the tools those that may be called are left.
static void choose_tools(json & body) {
    const json choice = json_value(body, "tool_choice", json());
    if (!choice.is_object()) {
        return;
    }
    const std::string type = json_value(choice, "type", std::string());
    if (type != "function" && type != "allowed_tools") {
        throw validation_error("tool_choice", "this server has functions only: give \"none\", \"auto\", \"required\", "
                                              "a function or allowed_tools");
    }
    const json wanted = type == "function" ? json::array({choice}) : json_value(choice, "tools", json::array());
    const json given  = json_value(body, "tools", json::array());
    json       chosen = json::array();
    for (size_t i = 0; i < wanted.size(); i++) {
        const std::string name    = json_value(wanted.at(i), "name", std::string());
        const size_t      n_found = chosen.size();
        for (size_t k = 0; k < given.size(); k++) {
            if (is_named(given.at(k), name)) {
                chosen.push_back(given.at(k));
            }
        }
        if (chosen.size() == n_found) {
            throw validation_error("tool_choice", "there is no tool '" + name + "' among tools");
        }
    }
    body["tools"]       = chosen;
    body["tool_choice"] = type == "function" ? "required" : json_value(choice, "mode", std::string("auto"));
}

void response_draft::translate(json & body) {
    name_types(body);
    move_format(body);
    choose_tools(body);
    body.erase("previous_response_id");
    body.erase("conversation");
}

} // namespace atlas
