#include "atlas-request-admission.hpp"

#include "atlas-error.hpp"
#include "atlas-log.hpp"
#include "hash/hash.h"
#include "request-log.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace atlas {

static rate_limits key_limits(const AtlasServerConfig & config) {
    return {config.key_requests_per_s, config.key_tokens_per_min};
}

static rate_limits session_limits(const AtlasServerConfig & config) {
    return {config.session_requests_per_s, config.session_tokens_per_min};
}

static bool is_limited(const rate_limits & limits) { return limits.requests_per_s > 0 || limits.tokens_per_min > 0; }

void request_admission::set_slots(int n_slots) {
    const auto configured = all_settings.values()->context_pool_size;
    if (n_slots > 0 && configured > n_slots) {
        logf(LogLevel::WARN, "context_pool_size is %lld, and there are %d slots: the pool has %d contexts",
             (long long) configured, n_slots, n_slots);
    }
    slots.set_pool_size(configured > 0 ? std::min<int64_t>(configured, n_slots) : n_slots);
}

// The session that X-Conversation-Id or prompt_cache_key names. Clients of stock send any text; one that is no valid id is
// replaced by its hash.
static std::string session_of(const std::string & text) {
    return is_valid_id(text) ? text : "sha256:" + hash_sha256_hex(text.data(), text.size());
}

static void refuse(const request & request, refusal why) {
    if (request.meter) {
        request.meter->refuse(why);
    }
}

static void note_wait(request_wait what, metrics & to, const request & request, request::clock::duration waited) {
    to.values.record(metrics::pool_wait(what), waited);
    if (request.meter) {
        request.meter->add_wait(waited);
    }
}

// Makes a call that may wait or throw atlas::error, and records both.
template <typename F> static auto wait_for(request_wait what, metrics & to, const request & request, F call) {
    const auto began = request::clock::now();
    const auto note  = [&] { note_wait(what, to, request, request::clock::now() - began); };
    try {
        auto result = call();
        note();
        return result;
    } catch (const error & e) {
        note();
        refuse(request, e.code == 429 ? refusal::too_many : refusal::exhausted);
        throw;
    }
}

std::unique_ptr<request_meter> request_admission::meter(const std::string & path, std::function<bool()> is_gone,
                                                        request::clock::time_point began) {
    return std::make_unique<request_meter>(numbers, route_of(path), std::move(is_gone), began);
}

std::unique_ptr<request> request_admission::begin(completion_head head) {
    if (is_closed) {
        throw error(503, "the server is shutting down");
    }
    auto begun        = std::make_unique<request>();
    begun->meter      = std::move(head.meter);
    begun->tenant     = std::move(head.who.tenant);
    begun->account    = std::move(head.who.account);
    begun->is_admin   = head.who.is_admin;
    begun->is_plugins = head.who.is_plugin;

    begun->request_id = is_valid_id(head.request_id) ? std::move(head.request_id) : random_request_id();
    if (is_traceparent(head.traceparent)) {
        begun->traceparent = std::move(head.traceparent);
    }
    if (hooks && hooks->has_any() && !begun->is_plugins) {
        begun->hooks = std::make_unique<hooked_request>(*hooks);
    }
    n_open++;
    begun->on_end = [this](const request & ended) { end(ended); };
    begun->add_time(request_phase::parse, request::clock::now() - head.began);
    return begun; // and one that is refused from here on is recorded and logged, too
}

void request_admission::set_options(request & request, const std::string & atlas, const std::string & header,
                                    const std::string & conversation, const std::string & cache_key) {
    const phase_timer timer(&request, request_phase::parse);
    if (request.meter && !atlas.empty()) {
        request.meter->set_atlas_object();
    }
    auto options = atlas.empty() ? request_options() : parse_request_options(atlas);
    if (!conversation.empty()) {
        if (options.session_id && *options.session_id != conversation) {
            throw validation_error("atlas.session_id", "'conversation' names the session '" + conversation +
                                                           "': leave this out, or give the same");
        }
        options.session_id = conversation;
    }
    if (!options.session_id && !header.empty()) {
        options.session_id = session_of(header);
    }
    if (options.history == history_keeper::server && !options.session_id) {
        throw validation_error("atlas.history", "\"server\" needs a session: give atlas.session_id too");
    }
    const std::string named = options.session_id ? *options.session_id : cache_key.empty() ? "" : session_of(cache_key);
    request.session         = named.empty() ? "" : tenants::qualified(request.tenant, named);
    request.set_options(std::move(options), !atlas.empty());
}

void request_admission::check_rates(const request & request) {
    if (request.is_plugins) {
        return;
    }
    const auto config  = all_settings.values();
    const auto now     = rate_limiter::clock::now();
    const auto exceeds = [&](const char * whose, double wait_s) {
        refuse(request, refusal::rate);
        throw error(429, std::string("Rate limit exceeded for this ") + whose,
                    (int) std::min(3600.0, std::ceil(wait_s)));
    };
    if (!request.session.empty()) {
        if (const double wait_s = session_rates.try_request(request.session, session_limits(*config), now)) {
            exceeds("session", wait_s);
        }
    }
    if (const double wait_s = key_rates.try_request(request.account, key_limits(*config), now)) {
        session_rates.give_back(request.session);
        exceeds("API key", wait_s);
    }
}

int request_admission::admit(request & request, int n_sequences, const std::function<bool()> & is_gone) {
    const int n_slots = std::min(n_sequences, request.options().batch_size.value_or(n_sequences));

    slot_pool::lease held;
    // those in the background have a limit of their own
    if (request.has_atlas_object() && !request.is_plugins && !request.background) {
        held = wait_for(request_wait::slots, numbers, request, [&] {
            return slots.enter(n_slots, !request.session.empty(), *all_settings.values(), is_gone);
        });
        if (!held) {
            throw error(503, "the client has left");
        }
    } else {
        held = slots.take(n_slots);
    }
    if (held.degraded()) {
        request.degrade("no context became free in time: processed as a standard request");
    }
    request.lease = std::make_shared<slot_pool::lease>(std::move(held));
    return n_slots;
}

void request_admission::lock_session(request & request, const std::function<bool()> & is_gone) {
    const auto config    = all_settings.values();
    request.session_lock = wait_for(request_wait::session_lock, numbers, request, [&] {
        return locks.take(request.session, config->pool_timeout_ms / 1000, config->max_concurrent_atlas_requests,
                          is_gone);
    });
    if (!request.session_lock) {
        throw error(503, "the client has left");
    }
}

void request_admission::add_wait(request & request, request_wait what, request_phase in,
                                 request::clock::duration waited) {
    note_wait(what, numbers, request, waited);
    request.add_time(in, -waited);
}

void request_admission::record_overhead(const request & request) {
    for (size_t i = 0; i < N_REQUEST_PHASES; i++) {
        const auto phase = static_cast<request_phase>(i);
        if (request.time_in(phase).count() > 0) {
            numbers.values.record(metrics::overhead(phase), request.time_in(phase));
        }
    }
    numbers.values.record(metrics::OVERHEAD, request.overhead());
}

void request_admission::charge(const request & request) {
    const auto   config   = all_settings.values();
    const auto   now      = rate_limiter::clock::now();
    const auto   used     = request.usage();
    const double n_tokens = (double) (used.prompt_tokens + used.answer_tokens);
    if (const auto limits = key_limits(*config); is_limited(limits)) {
        key_rates.charge(request.account, n_tokens, limits, now);
    }
    if (const auto limits = session_limits(*config); is_limited(limits) && !request.session.empty()) {
        session_rates.charge(request.session, n_tokens, limits, now);
    }
}

void request_admission::end(const request & request) {
    record_overhead(request);
    if (!request.is_plugins) {
        charge(request);
    }
    auto record = request.record();
    log_ended(request, record, *all_settings.values());
    n_breaches += record.ms.overhead > all_settings.values()->api_latency_budget_ms ? 1 : 0;
    record.number = all_ended.add(record);
    if (request.hooks) {
        request.hooks->end(record.outcome == "ok" ? hook::finished : hook::failed, record.to_json());
    }
    n_open--;
}

void request_admission::close() {
    is_closed = true;
    slots.close();
    locks.close();
}

} // namespace atlas
