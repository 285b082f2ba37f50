#include "atlas-request.hpp"

#include <nlohmann/json.hpp>

#include <numeric>
#include <utility>

namespace atlas {

using json = nlohmann::ordered_json;

request::~request() {
    if (on_end) {
        on_end(*this);
    }
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

// Whether the result says that the memory could be used, as far as it went.
static bool is_of_match(restore_result result) {
    return result == restore_result::restored || result == restore_result::slot_has_it ||
           result == restore_result::no_match || result == restore_result::below_break_even;
}

const moved_prompt * request::what_moved() const {
    const bool is_known = moved && lookup && is_of_match(lookup->outcome().result);
    // a slot may have more than the memory yet has
    return is_known && (size_t) usage().reused_tokens < moved->token + MIN_BEHIND_MOVED ? &*moved : nullptr;
}

// Why the request did not get something that it asked for, or that the memory might have given; null where it got all.
static json reason_json(const std::string & degraded_reason, const lookup_result * lookup, bool is_hit,
                        bool has_moved) {
    static const char *           SLOT_ONLY = "slot_only"; // no tier had any of the prompt, but the slot did
    static constexpr const char * MOVED     = "prefix_moved";

    if (!degraded_reason.empty()) {
        return degraded_reason;
    }
    if (has_moved) {
        return MOVED;
    }
    const auto result  = lookup != nullptr ? lookup->outcome().result : restore_result::slot_has_it;
    const bool is_fine = result == restore_result::restored || result == restore_result::slot_has_it;
    if (is_fine) {
        return json();
    }
    return is_hit && result == restore_result::no_match ? SLOT_ONLY : RESTORE_RESULT_NAMES[static_cast<size_t>(result)];
}

std::string request::answer() const {
    const double        overhead_ms = std::chrono::duration<double, std::milli>(overhead()).count();
    const request_usage used        = usage();
    const bool          cache_hit   = used.reused_tokens > 0;

    json out          = json::object();
    out["session_id"] = opts.session_id ? json(*opts.session_id) : json();
    if (opts.memory_layers) {
        out["memory_layers"] = *opts.memory_layers;
    }
    out["cache_hit"]     = cache_hit;
    out["reused_tokens"] = used.reused_tokens;
    out["prompt_tokens"] = used.prompt_tokens;
    if (lookup) {
        const restore_outcome how = lookup->outcome();
        out["layer"]              = how.tier;
        out["restore_ms"]         = how.restore_ms;
    }
    out["layers_used"] = json::array();
    for (const int tier : tiers) {
        if (tier <= opts.memory_layers.value_or(tier)) {
            out["layers_used"].push_back(tier);
        }
    }
    out["overhead_ms"] = overhead_ms;
    out["degraded"]    = !degraded_reason.empty();
    const auto * what  = what_moved();
    out["reason"]      = reason_json(degraded_reason, lookup.get(), cache_hit, what != nullptr);
    if (what) {
        out["moved"] = {{"what", what->what}, {"token", what->token}, {"text", what->text}};
    }
    return out.dump(-1, ' ', false, json::error_handler_t::replace);
}

request_record request::record() const {
    request_record made;
    if (meter) {
        meter->end();
        static_cast<metered_request &>(made) = meter->described();
    }
    made.request_id       = request_id;
    made.traceparent      = traceparent;
    made.has_atlas_object = has_object;
    made.tenant           = tenant;
    made.session_id       = session;
    made.session          = session.empty() ? "" : hash_of_session(session);
    made.ended            = std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
    made.ms.overhead      = std::chrono::duration<double, std::milli>(overhead()).count();
    made.degraded         = degraded_reason;
    if (lookup) {
        const restore_outcome how = lookup->outcome();
        made.memory_result        = RESTORE_RESULT_NAMES[static_cast<size_t>(how.result)];
        made.tier                 = how.tier;
        made.moved                = what_moved() ? moved->what : "";
        if (how.result == restore_result::restored) {
            made.ms.restore = how.restore_ms;
            made.ms.queue -= std::min(made.ms.queue, how.restore_ms); // the meter counted the restore as queueing
        }
    }
    return made;
}

} // namespace atlas
