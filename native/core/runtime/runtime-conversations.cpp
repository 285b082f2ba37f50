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

std::string runtime::recorded_messages(const std::string & session) {
    if (!keeps_conversations()) {
        const std::string off = saving_off(*config());
        throw error(503, "\"history\": \"server\" needs a place for conversations: " +
                             (off.empty() ? "Python, which keeps them, is not running" : off));
    }
    const json answer = json::parse(embedded.perform(ATLAS_CALL_HISTORY, json{{"session_id", session}}.dump()));
    return answer.at("messages").dump();
}

void runtime::record_messages(const std::string & session, const std::string & messages) {
    embedded.perform(ATLAS_CALL_RECORD, "{\"session_id\":" + json(session).dump() + ",\"messages\":" + messages + "}");
}

std::string runtime::items_of_response(const std::string & tenant, const std::string & id) {
    if (!keeps_conversations()) {
        const std::string off = saving_off(*config());
        throw error(503, "'previous_response_id' needs a place for responses: " +
                             (off.empty() ? "Python, which keeps them, is not running" : off));
    }
    const json asked  = {{"tenant", tenant}, {"response_id", id}};
    const json answer = json::parse(embedded.perform(ATLAS_CALL_RESPONSE_ITEMS, asked.dump()));
    return answer.at("items").dump();
}

void runtime::keep_response(const std::string & tenant, const std::string & input, const std::string & response) {
    embedded.perform(ATLAS_CALL_KEEP_RESPONSE, "{\"tenant\":" + json(tenant).dump() + ",\"input\":" + input +
                                                   ",\"response\":" + response + "}");
}

} // namespace atlas
