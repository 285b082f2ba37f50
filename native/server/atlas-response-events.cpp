#include "atlas-response-events.h"

#include "server-common.h"

#include <algorithm>

namespace atlas {

// Parts of an item have a place in it; ours have one each.
static const char * const OF_PARTS[] = {
    "response.content_part.added", "response.content_part.done",    "response.output_text.delta",
    "response.output_text.done",   "response.reasoning_text.delta", "response.reasoning_text.done",
};

static bool is_of_part(const std::string & type) {
    return std::find(std::begin(OF_PARTS), std::end(OF_PARTS), type) != std::end(OF_PARTS);
}

static void add(json & holder, const char * key, const json & value) {
    if (!holder.contains(key)) {
        holder[key] = value;
    }
}

static json event_of(const char * type, json data) {
    data["type"] = type;
    return {{"event", type}, {"data", data}};
}

// What comes before the end of an item of this type, so that a client which follows the pieces knows that it has all.
static json before_end(const json & item) {
    const std::string type = json_value(item, "type", std::string());
    const std::string id   = json_value(item, "id", std::string());
    if (type == "function_call") {
        return event_of("response.function_call_arguments.done",
                        {{"item_id", id}, {"name", item.at("name")}, {"arguments", item.at("arguments")}});
    }
    if (type == "reasoning" && item.contains("content") && !item.at("content").empty()) {
        return event_of("response.reasoning_text.done",
                        {{"item_id", id}, {"text", item.at("content").at(0).at("text")}});
    }
    return json();
}

size_t response_events::place_of(const std::string & item_id) {
    const auto found = std::find(items.begin(), items.end(), item_id);
    if (found != items.end()) {
        return found - items.begin();
    }
    items.push_back(item_id);
    return items.size() - 1;
}

void response_events::complete_event(json & event) {
    json &            data = event.at("data");
    const std::string type = json_value(data, "type", std::string());
    if (data.contains("item")) {
        add(data.at("item"), "status", "completed");
        add(data, "output_index", place_of(json_value(data.at("item"), "id", std::string())));
    } else if (data.contains("item_id")) {
        add(data, "output_index", place_of(json_value(data, "item_id", std::string())));
    }
    if (is_of_part(type)) {
        add(data, "content_index", 0);
    }
    if (type == "response.output_text.delta" || type == "response.output_text.done") {
        add(data, "logprobs", json::array());
    }
    if (data.contains("part")) {
        add(data.at("part"), "annotations", json::array());
        add(data.at("part"), "logprobs", json::array());
    }
}

void response_events::complete(json & piece) {
    json whole = json::array();
    for (size_t i = 0; i < piece.size(); i++) {
        json & event = piece.at(i);
        if (json_value(event, "event", std::string()) == "response.output_item.done") {
            if (json more = before_end(event.at("data").at("item")); !more.is_null()) {
                complete_event(more);
                whole.push_back(more);
            }
        }
        complete_event(event);
        whole.push_back(event);
    }
    piece = std::move(whole);
}

void response_events::number(json & piece, int64_t first) {
    next = std::max(next, first);
    for (size_t i = 0; piece.is_array() && i < piece.size(); i++) {
        if (piece.at(i).contains("data") && piece.at(i).at("data").is_object()) {
            piece.at(i).at("data")["sequence_number"] = next++;
        }
    }
}

} // namespace atlas
