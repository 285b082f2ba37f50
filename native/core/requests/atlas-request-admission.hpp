// Decides about a completion request before its task is posted: whose it is, whether it may go on, and when. Takes
// short locks, and waits where it says so; HTTP threads call it, the token loop never does.
#pragma once

#include "atlas-conversations.hpp"
#include "atlas-ended-requests.hpp"
#include "atlas-metrics.hpp"
#include "atlas-rate-limit.hpp"
#include "atlas-request.hpp"
#include "atlas-session-locks.hpp"
#include "atlas-settings.hpp"
#include "atlas-slot-pool.hpp"
#include "atlas-tenant.hpp"

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace atlas {

// What a completion request says of itself besides its body.
struct completion_head {
    identity                       who;
    std::string                    request_id; // header X-Request-Id; where it is no valid id another is made
    std::string                    traceparent; // header traceparent; ignored where it is malformed
    request::clock::time_point     began;           // when ATLAS began to look at it
    std::unique_ptr<request_meter> meter;       // of request_admission::meter()
};

// One for a server. Any thread; nothing here waits but admit() and lock_session(). Requests must end before it does.
class request_admission {
  public:
    explicit request_admission(const settings & settings)
        : all_settings(settings), numbers(settings.values()->enable_metrics_collection) {}

    // To be called before there are requests.
    void set_tenants(tenants who) { known = std::move(who); }

    // Where plugins are asked about requests; has to outlive this. To be called before there are requests.
    void set_hooks(hook_calls & calls) { hooks = &calls; }

    // The model is ready, and has so many slots.
    void set_slots(int n_slots);

    const tenants & who() const { return known; }

    // The meter of a request whose body has not been read yet. is_gone: as for request_meter.
    std::unique_ptr<request_meter> meter(const std::string & path, std::function<bool()> is_gone,
                                         request::clock::time_point began);

    // Throws atlas::error 503 after close().
    std::unique_ptr<request> begin(completion_head head);

    // Sets what the `atlas` object says (JSON text; empty: there is none), and the session: the conversation that the body
    // names, else atlas.session_id, else header X-Conversation-Id, else the body's prompt_cache_key, for which nothing that is said
    // is recorded; each empty where it is not given. Throws atlas::error 400.
    static void set_options(request & request, const std::string & atlas, const std::string & header,
                            const std::string & conversation, const std::string & cache_key);

    // Throws atlas::error 429 when the key or the session is over its rate.
    void check_rates(const request & request);

    // Waits for the slots that n_sequences sequences need, or as many of them as the request's batch_size lets run at
    // once; standard requests never wait. Returns how many may run at once. Throws atlas::error 429 and 503; 503 also
    // when is_gone says that the client left.
    int admit(request & request, int n_sequences, const std::function<bool()> & is_gone);

    // Waits for the session lock, until the earlier requests on the session have ended. Throws atlas::error like
    // admit().
    void lock_session(request & request, const std::function<bool()> & is_gone);

    // Records a wait that another part of ATLAS had, and takes it out of the time of the phase in which it was.
    void add_wait(request & request, request_wait what, request_phase in, request::clock::duration waited);

    conversation_queue & conversations() { return sent; }

    slot_pool & pool() { return slots; }

    metrics & recorded() { return numbers; }

    const ended_requests & ended() const { return all_ended; }

    // Requests that took longer in ATLAS than the latency budget.
    uint64_t budget_breaches() const { return n_breaches; }

    // Requests that have begun and not ended.
    int64_t open() const { return n_open; }

    // Ends the waiting for slots and session locks, and lets no more requests begin.
    void close();

  private:
    const settings &   all_settings;
    tenants            known;
    slot_pool          slots;
    rate_limiter       key_rates;
    rate_limiter       session_rates;
    session_locks      locks;
    conversation_queue sent;
    metrics            numbers;
    ended_requests     all_ended;

    std::atomic<uint64_t> n_breaches{0};
    std::atomic<int64_t>  n_open{0};
    std::atomic<bool>     is_closed{false};

    hook_calls * hooks = nullptr;

    void end(const request & request);
    void charge(const request & request);
    void record_overhead(const request & request);
};

} // namespace atlas
