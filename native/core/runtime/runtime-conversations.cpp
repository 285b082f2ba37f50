// What sessions said, and responses that clients may come back to: Python keeps both.
#include "atlas-abi.h"
#include "atlas-error.hpp"
#include "atlas-in-effect.hpp"
#include "atlas-runtime.hpp"

#include <nlohmann/json.hpp>

#include <string>

namespace atlas {

using json = nlohmann::json;

bool runtime::keeps_conversations() const { return embedded.running() && saving_off(*config()).empty(); }

// Throws atlas::error 503 where there is no such place.
void runtime::check_kept(const std::string & wanted) const {
    if (!keeps_conversations()) {
        const std::string off = saving_off(*config());
        throw error(503, wanted + (off.empty() ? "Python, which keeps them, is not running" : off));
    }
}

// What an answer of Python's says of "degraded".
static std::string degraded_of(const json & answer) {
    const auto found = answer.find("degraded");
    return found != answer.end() && found->is_string() ? found->get<std::string>() : "";
}

runtime::recorded runtime::recorded_messages(const std::string & session) {
    check_kept("\"history\": \"server\" needs a place for conversations: ");
    const json answer = json::parse(embedded.perform(ATLAS_CALL_HISTORY, json{{"session_id", session}}.dump()));
    return {answer.at("messages").dump(), degraded_of(answer)};
}

std::string runtime::record_messages(const std::string & session, const std::string & messages) {
    return degraded_of(json::parse(embedded.perform(ATLAS_CALL_RECORD, "{\"session_id\":" + json(session).dump() +
                                                                           ",\"messages\":" + messages + "}")));
}

std::string runtime::items_of_response(const std::string & tenant, const std::string & id) {
    check_kept("'previous_response_id' needs a place for responses: ");
    const json asked  = {{"tenant", tenant}, {"response_id", id}};
    const json answer = json::parse(embedded.perform(ATLAS_CALL_RESPONSE_ITEMS, asked.dump()));
    return answer.at("items").dump();
}

std::string runtime::why_no_responses() const {
    if (!embedded.running()) {
        return "Python, which keeps them, is not running";
    }
    const std::string off = saving_off(*config());
    return !off.empty() || config()->store_responses ? off : "that is off: turn it on with --atlas-store-responses";
}

void runtime::keep_response(const std::string & tenant, const std::string & input, const std::string & response,
                            int64_t last_event) {
    embedded.perform(ATLAS_CALL_KEEP_RESPONSE, "{\"tenant\":" + json(tenant).dump() + ",\"input\":" + input +
                                                   ",\"response\":" + response +
                                                   ",\"last_event\":" + std::to_string(last_event) + "}");
}

} // namespace atlas
