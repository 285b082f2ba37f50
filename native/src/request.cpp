#include "atlas-request.hpp"

#include "atlas-log.hpp"

#include <nlohmann/json.hpp>

#include <numeric>
#include <utility>

namespace atlas {

using json = nlohmann::ordered_json;

request::request(request_options options, bool is_asked, clock::time_point began)
    : opts(std::move(options)), has_object(is_asked) {
    add_time(request_phase::parse, clock::now() - began);
}

request::~request() {
    if (on_end) {
        on_end(*this);
    }
}

void request::add_usage(const request_usage & more) {
    usage.prompt_tokens += more.prompt_tokens;
    usage.reused_tokens += more.reused_tokens;
    usage.answer_tokens += more.answer_tokens;
}

void request::degrade(const std::string & reason) {
    if (degraded_reason.empty()) {
        degraded_reason = reason;
    }
}

void request::add_time(request_phase phase, clock::duration more) { spent[static_cast<size_t>(phase)] += more; }

request::clock::duration request::overhead() const {
    return std::accumulate(spent.begin(), spent.end(), clock::duration());
}

// Why something that was asked for, or could have been had, was not; null when nothing was missed.
static json reason_json(const std::string & degraded_reason, const memory_ticket * ticket) {
    if (!degraded_reason.empty()) {
        return degraded_reason;
    }
    const bool is_fine = ticket == nullptr || ticket->result == restore_result::restored ||
                         ticket->result == restore_result::slot_has_it;
    return is_fine ? json() : json(RESTORE_RESULT_NAMES[static_cast<size_t>(ticket->result)]);
}

std::string request::answer() const {
    const double overhead_ms = std::chrono::duration<double, std::milli>(overhead()).count();
    const bool   cache_hit   = usage.reused_tokens > 0;

    json out          = json::object();
    out["session_id"] = opts.session_id ? json(*opts.session_id) : json();
    if (opts.memory_layers) {
        out["memory_layers"] = *opts.memory_layers;
    }
    out["cache_hit"]     = cache_hit;
    out["reused_tokens"] = usage.reused_tokens;
    out["prompt_tokens"] = usage.prompt_tokens;
    if (ticket) {
        out["layer"]      = ticket->layer;
        out["restore_ms"] = ticket->restore_ms;
    }
    out["layers_used"] = json::array();
    for (const int layer : layers) {
        if (layer <= opts.memory_layers.value_or(layer)) {
            out["layers_used"].push_back(layer);
        }
    }
    out["overhead_ms"] = overhead_ms;
    out["degraded"]    = !degraded_reason.empty();
    out["reason"]      = reason_json(degraded_reason, ticket.get());

    logf(LogLevel::INFO, "Request processed in %.3f ms (session=%s, memory_layers=%s, cache_hit=%s)", overhead_ms,
         opts.session_id ? opts.session_id->c_str() : "none",
         opts.memory_layers ? std::to_string(*opts.memory_layers).c_str() : "all", cache_hit ? "true" : "false");
    return out.dump();
}

} // namespace atlas
