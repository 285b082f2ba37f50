// One completion request with its `atlas` object, from parsing to its answer. Touches no lock; the HTTP thread that
// serves it owns it.
#pragma once

#include "atlas-ended-requests.hpp"
#include "atlas-exact-answers.hpp"
#include "atlas-hooked-request.hpp"
#include "atlas-lookup-result.hpp"
#include "atlas-metrics.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace atlas {

class background_response;
class response_draft; // native/server has these
class completion_draft;
class strict_answer;

// Who sends the earlier messages of the session: the client with each request, or the server from its record.
enum class history_keeper { client, server };

// The validated `atlas` object; a field that was not given has no value or its default.
struct request_options {
    std::optional<std::string> session_id;    // 1-128 of A-Z a-z 0-9 . _ : -
    std::optional<int>         memory_layers; // 1-10: the request uses tiers up to this one; default: all there are
    cache_strategy             strategy = cache_strategy::adaptive;
    std::optional<int>         batch_size; // 1-32: sequences of one request that may hold slots at once
    history_keeper             history = history_keeper::client;
};

// Whether text may name a session or a context.
bool is_valid_id(const std::string & text);

// Validates the JSON text of an `atlas` object. Throws atlas::error (400) that names the field, as 'atlas.batch_size'.
request_options parse_request_options(const std::string & json);

// JSON: {"request": schema, "answer": schema} of the `atlas` object, in JSON Schema 2020-12, made from what validates.
std::string request_schema_json();

// Where a prompt differs from what the memory has in its place, though there is much behind it.
struct moved_prompt {
    std::string what; // as moved_text has it; "history": nothing that is known, in a session that has more
    size_t      token = 0; // the first that differs
    std::string text; // of the prompt itself, not of what the memory has
};

// With fewer tokens behind it, what has moved costs next to nothing.
constexpr size_t MIN_BEHIND_MOVED = 64;

// What tier 3 had of a prompt.
struct fetched_prompt {
    size_t       n_tokens; // of the prompt
    fetch_result result;
};

// One completion request, from parsing to its answer. Used by one thread at a time.
class request {
  public:
    using clock = std::chrono::steady_clock;

    request() = default;

    ~request();

    // To be called before anything else reads them. has_atlas_object: whether they came with the request.
    void set_options(request_options options, bool has_atlas_object) {
        opts       = std::move(options);
        has_object = has_atlas_object;
    }

    const request_options & options() const { return opts; }
    bool                    has_atlas_object() const { return has_object; }

    std::string tenant;  // of the API key that it came with; empty: none
    std::string account; // the name under which its rates are counted
    std::string session; // the session's name, qualified by the tenant; empty: none
    std::string request_id;
    std::string traceparent; // W3C Trace Context; empty: none
    bool        is_admin    = false; // may do what an admin may
    bool        is_streamed = false; // the client asked for the answer piece by piece
    bool        is_admitted = false; // its body has been read: what is asked for is known
    bool        is_plugins  = false; // of a plugin: no hooks, no rates, and it waits for no lease

    // Held until the request ends: the lease on slots, and the session lock.
    std::shared_ptr<void> lease;
    std::shared_ptr<void> session_lock;

    // What asks plugins about it; nullptr: there were none with a say in requests when it began.
    std::unique_ptr<hooked_request> hooks;

    // What counts its tokens and records its times; nullptr: nothing does.
    std::unique_ptr<request_meter> meter;

    // JSON array of the messages sent, and the JSON of the message that answers them; empty: not to be recorded.
    std::string messages;
    std::string answer_message;
    std::string answer_begun; // JSON of an assistant message, not in messages, that the answer continues; or empty

    // Of a prompt that offers tools: where it ends, and what the model has written behind it. Empty: not to be kept.
    std::optional<prompt_end> answered_behind;
    std::string               written;

    // Of a conversation that the server keeps: what was answered in it before; and, where keeps_answer, the end of this prompt and
    // the arguments of the calls that answer it.
    std::vector<exact_answer> answered;
    bool                      keeps_answer = false;
    std::optional<prompt_end> ends_at;
    std::vector<std::string>  called_with;

    // What a plugin took out of the answer is not to be kept by its tokens.
    void forget_exact_answer() { ends_at.reset(); }

    // Of a request on /v1/responses: what becomes of it.
    std::shared_ptr<response_draft> response;

    // Of a chat completion that is to be kept: what is kept of it. Null: it is not.
    std::shared_ptr<completion_draft> completion;

    // What gives its answer all fields that its API's schema requires; null: it is answered as upstream does.
    std::shared_ptr<strict_answer> strict;
    // Where that is made in the background: it was let in when its client sent it. Else null.
    std::shared_ptr<background_response> background;

    std::optional<moved_prompt> moved; // of the first prompt

    // What was fetched for its prompts before it waited for a lease, in their order; those that were looked up are taken out.
    std::deque<fetched_prompt> fetched;

    // Called once, when the request ends, however it does.
    std::function<void(const request &)> on_end;

    // The tokens of prompt and answer, as far as they are known.
    request_usage usage() const { return meter ? meter->usage() : request_usage(); }

    // Keeps what the memory found for the request's first prompt; later prompts change nothing.
    void set_lookup(std::shared_ptr<const lookup_result> found) {
        if (!lookup) {
            lookup = std::move(found);
        }
    }

    bool has_lookup() const { return lookup != nullptr; }

    // The tokens that answer its first prompt, as far as their state is there, once its last result has come; none where they
    // were not to be kept.
    std::vector<int32_t> answer_tokens() const { return lookup ? lookup->answer_tokens : std::vector<int32_t>(); }

    // What has moved, where all behind it had to be computed for that; else nullptr. Once the answer has begun.
    const moved_prompt * what_moved() const;

    // Notes that the request cannot have something that it asked for, and why. Only the first reason is kept.
    void degrade(const std::string & reason);

    void            add_time(request_phase phase, clock::duration spent);
    clock::duration overhead() const;
    clock::duration time_in(request_phase phase) const { return spent[static_cast<size_t>(phase)]; }

    // Sets the tiers that the memory has. The answer says which of them the request could use.
    void set_tiers(std::vector<int> available) { tiers = std::move(available); }

    // JSON text of the `atlas` object in the answer.
    std::string answer() const;

    // The record of the request, which has ended: this also ends its meter.
    request_record record() const;

  private:
    request_options  opts;
    bool             has_object = false;
    std::string      degraded_reason;
    std::vector<int> tiers;

    std::shared_ptr<const lookup_result> lookup;

    std::array<clock::duration, N_REQUEST_PHASES> spent = {};
};

// Adds the time from its construction to its destruction to a phase. A null request: does nothing.
class phase_timer {
  public:
    phase_timer(request * owner, request_phase phase) : owner(owner), phase(phase) {}
    phase_timer(const phase_timer &)             = delete;
    phase_timer & operator=(const phase_timer &) = delete;
    ~phase_timer() {
        if (owner) {
            owner->add_time(phase, request::clock::now() - began);
        }
    }

  private:
    request *                        owner;
    request_phase                    phase;
    const request::clock::time_point began = request::clock::now();
};

} // namespace atlas
