#include "request-log.hpp"

#include "atlas-log.hpp"

#include <cmath>
#include <cstdio>

namespace atlas {

// " wait 0.120 ms", or an empty text when the time is not known.
static std::string phase(const char * name, double ms) {
    char text[64] = "";
    if (!std::isnan(ms)) {
        std::snprintf(text, sizeof(text), " %s %.3f ms", name, ms);
    }
    return text;
}

static void log_slow(const request_record & record, double threshold_ms) {
    const auto & ms = record.ms;
    char         head[160];
    std::snprintf(head, sizeof(head), "Slow request %s: %s took %.0f ms, over %.0f ms:", record.request_id.c_str(),
                  record.route.c_str(), ms.total, threshold_ms);
    char tail[160];
    std::snprintf(tail, sizeof(tail), "; %lld prompt tokens (%lld reused), %lld answer tokens, outcome %s",
                  (long long) record.tokens.prompt_tokens, (long long) record.tokens.reused_tokens,
                  (long long) record.tokens.answer_tokens, record.outcome.c_str());
    log(LogLevel::WARN,
        head + phase("overhead", ms.overhead) + phase("wait", ms.wait) + phase("queue", ms.queue) +
            phase("restore", ms.restore) + phase("prefill", ms.prefill) + phase("decode", ms.decode) + tail,
        "\"request\":" + record.to_json());
}

static void log_over_budget(const request & request, double overhead_ms, double budget_ms) {
    std::string phases;
    for (size_t i = 0; i < N_REQUEST_PHASES; i++) {
        const auto time = request.time_in(static_cast<request_phase>(i));
        phases += phase(REQUEST_PHASE_NAMES[i], std::chrono::duration<double, std::milli>(time).count());
    }
    logf(LogLevel::DEBUG, "Request took %.3f ms in ATLAS, over the latency budget of %.3f ms:%s", overhead_ms,
         budget_ms, phases.c_str());
}

void log_ended(const request & request, const request_record & record, const AtlasServerConfig & config) {
    if (is_logged(LogLevel::INFO)) {
        const auto & tiers = request.options().memory_layers;
        char         text[160];
        std::snprintf(text, sizeof(text),
                      "Request processed in %.3f ms (memory_layers=%s, cache_hit=%s), of which ATLAS took %.3f ms",
                      record.ms.total, tiers ? std::to_string(*tiers).c_str() : "all",
                      record.tokens.reused_tokens > 0 ? "true" : "false", record.ms.overhead);
        log(LogLevel::INFO, text, config.log_format == LogFormat::JSON ? "\"request\":" + record.to_json() : "");
        if (const auto * moved = request.what_moved()) {
            logf(LogLevel::INFO, "Request %s: %s moved at token %zu of %lld, and all behind it was computed",
                 record.request_id.c_str(), moved->what.c_str(), moved->token, (long long) record.tokens.prompt_tokens);
        }
    }
    if (config.slow_request_ms > 0 && record.ms.total > config.slow_request_ms) {
        log_slow(record, config.slow_request_ms);
    }
    if (record.ms.overhead > config.api_latency_budget_ms) {
        log_over_budget(request, record.ms.overhead, config.api_latency_budget_ms);
    }
}

} // namespace atlas
