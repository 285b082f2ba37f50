#include "atlas-request.hpp"

#include "atlas-error.hpp"
#include "atlas-log.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <utility>

namespace atlas {

using json = nlohmann::ordered_json;

static const size_t MAX_ID_LENGTH = 128;

bool is_valid_id(const std::string & text) {
    const auto allowed = [](unsigned char c) {
        return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
               c == ':' || c == '-';
    };
    return !text.empty() && text.size() <= MAX_ID_LENGTH && std::all_of(text.begin(), text.end(), allowed);
}

static int parse_int(const std::string & field, const json & value, int min, int max) {
    const std::string range = "value must be between " + std::to_string(min) + " and " + std::to_string(max);
    if (!value.is_number_integer()) {
        throw validation_error(field, "value must be an integer between " + std::to_string(min) + " and " +
                                          std::to_string(max));
    }
    // compared as JSON numbers, so that one beyond 64 bits is out of range instead of wrapped around
    if (value < min || value > max) {
        throw validation_error(field, range);
    }
    return value.get<int>();
}

static cache_strategy parse_strategy(const std::string & field, const json & value) {
    if (value == "lru") {
        return cache_strategy::lru;
    }
    if (value == "lfu") {
        return cache_strategy::lfu;
    }
    if (value == "adaptive") {
        return cache_strategy::adaptive;
    }
    throw validation_error(field, "value must be \"lru\", \"lfu\" or \"adaptive\"");
}

static std::string parse_session_id(const std::string & field, const json & value) {
    if (!value.is_string() || !is_valid_id(value.get_ref<const std::string &>())) {
        throw validation_error(field, "value must be a string of 1 to 128 characters out of A-Z a-z 0-9 . _ : -");
    }
    return value.get<std::string>();
}

request_options parse_request_options(const std::string & text) {
    const json object = json::parse(text);
    if (!object.is_object()) {
        throw validation_error("atlas", "value must be an object");
    }
    request_options options;
    for (const auto & [key, value] : object.items()) {
        const std::string field = "atlas." + key;
        if (key == "session_id") {
            options.session_id = parse_session_id(field, value);
        } else if (key == "memory_layers") {
            options.memory_layers = parse_int(field, value, 1, 10);
        } else if (key == "cache_strategy") {
            options.strategy = parse_strategy(field, value);
        } else if (key == "batch_size") {
            options.batch_size = parse_int(field, value, 1, 32);
        } else if (key == "history") {
            if (value == "server") {
                throw validation_error(field, "\"server\" is not supported by this version; send the whole "
                                              "conversation and leave the field out");
            }
            if (value != "client") {
                throw validation_error(field, "value must be \"client\" or \"server\"");
            }
        } else {
            throw validation_error(field, "unknown field; known are session_id, memory_layers, cache_strategy, "
                                          "batch_size and history");
        }
    }
    return options;
}

request::request(request_options options, clock::time_point began, std::string degraded_reason)
    : opts(std::move(options)), degraded_reason(std::move(degraded_reason)), overhead(clock::now() - began) {}

void request::add_usage(const request_usage & more) {
    usage.prompt_tokens += more.prompt_tokens;
    usage.reused_tokens += more.reused_tokens;
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
    const double overhead_ms = std::chrono::duration<double, std::milli>(overhead).count();
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
    out["overhead_ms"] = overhead_ms;
    out["degraded"]    = !degraded_reason.empty();
    out["reason"]      = reason_json(degraded_reason, ticket.get());

    logf(LogLevel::INFO, "Request processed in %.3f ms (session=%s, memory_layers=%s, cache_hit=%s)", overhead_ms,
         opts.session_id ? opts.session_id->c_str() : "none",
         opts.memory_layers ? std::to_string(*opts.memory_layers).c_str() : "all", cache_hit ? "true" : "false");
    return out.dump();
}

} // namespace atlas
