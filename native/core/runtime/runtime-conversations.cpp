// What sessions said, and responses that clients may come back to: Python keeps both.
#include "atlas-abi.h"
#include "atlas-error.hpp"
#include "atlas-in-effect.hpp"
#include "atlas-runtime.hpp"

#include <nlohmann/json.hpp>

#include <string>
#include <string_view>

namespace atlas {

using json = nlohmann::json;

bool runtime::keeps_conversations() const { return embedded.running() && saving_off(*config()).empty(); }

static std::string or_python(const std::string & off) {
    return off.empty() ? "Python, which keeps them, is not running" : off;
}

// Throws atlas::error 503 where there is no such place.
void runtime::check_kept(const std::string & wanted) const {
    if (!keeps_conversations()) {
        throw error(503, wanted + or_python(saving_off(*config())));
    }
}

std::string runtime::why_not_stored() const { return keeps_responses() ? "" : or_python(storing_off(*config())); }

// What an answer of Python's says of "degraded".
static std::string degraded_of(const json & answer) {
    const auto found = answer.find("degraded");
    return found != answer.end() && found->is_string() ? found->get<std::string>() : "";
}

runtime::recorded runtime::recorded_messages(const std::string & session) {
    check_kept("\"history\": \"server\" needs a place for conversations: ");
    const json answer = json::parse(embedded.perform(ATLAS_CALL_HISTORY, json{{"session_id", session}}.dump()));
    return {answer.at("messages").dump(), answer.at("answers").dump(), degraded_of(answer), ""};
}

std::string runtime::record_messages(const std::string & session, const std::string & messages,
                                     const std::string & exact) {
    return degraded_of(json::parse(embedded.perform(ATLAS_CALL_RECORD, "{\"session_id\":" + json(session).dump() +
                                                                           ",\"messages\":" + messages +
                                                                           ",\"exact\":" + exact + "}")));
}

runtime::recorded runtime::recorded_conversation(const std::string & session, const std::string & references) {
    check_kept("'conversation' needs a place for conversations: ");
    const json answer = json::parse(embedded.perform(ATLAS_CALL_HISTORY, "{\"session_id\":" + json(session).dump() +
                                                                             ",\"references\":" + references + "}"));
    return {answer.at("messages").dump(), answer.at("answers").dump(), degraded_of(answer),
            answer.at("referenced").dump()};
}

runtime::response_items runtime::items_of_response(const std::string & tenant, const std::string & id,
                                                   const std::string & references) {
    check_kept("'previous_response_id' needs a place for responses: ");
    const json answer = json::parse(embedded.perform(
        ATLAS_CALL_RESPONSE_ITEMS, "{\"tenant\":" + json(tenant).dump() + ",\"response_id\":" + json(id).dump() +
                                       ",\"references\":" + references + "}"));
    return {answer.at("items").dump(), answer.at("referenced").dump(), answer.at("answers").dump(),
            answer.at("first").get<std::string>()};
}

std::string runtime::keep_response(const std::string & tenant, const std::string & session, const std::string & input,
                                   const std::string & response, const std::string & exact, int64_t last_event) {
    const json name = session.empty() ? json() : json(session);
    return degraded_of(json::parse(embedded.perform(
        ATLAS_CALL_KEEP_RESPONSE, "{\"tenant\":" + json(tenant).dump() + ",\"session_id\":" + name.dump() +
                                      ",\"input\":" + input + ",\"response\":" + response + ",\"exact\":" + exact +
                                      ",\"last_event\":" + std::to_string(last_event) + "}")));
}

void runtime::keep_completion(const std::string & tenant, const std::string & messages,
                              const std::string & completion) {
    embedded.perform(ATLAS_CALL_KEEP_COMPLETION, "{\"tenant\":" + json(tenant).dump() + ",\"messages\":" + messages +
                                                     ",\"completion\":" + completion + "}");
}

std::string runtime::take_conversations(std::string_view session) {
    auto &      queue = requests.conversations();
    const auto  taken = session.empty() ? queue.take(ATLAS_MAX_CONVERSATIONS) : queue.take_of(std::string(session));
    std::string text  = "[";
    for (const auto & each : taken) {
        text += text.size() > 1 ? "," : "";
        text += "{\"session_id\":" + json(each.session).dump() + ",\"messages\":" + each.messages + "}";
    }
    return text + "]";
}

} // namespace atlas
