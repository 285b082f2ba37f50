// What a server records of its requests while it serves them; docs/metrics.md says what each family means. Touches the
// recorder's atomics only. HTTP threads record, each for its own request.
#pragma once

#include "atlas-lookup-result.hpp"
#include "atlas-recorder.hpp"

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace atlas {

enum class request_route { chat, completions, completion, responses, messages, infill };

constexpr const char * REQUEST_ROUTE_NAMES[] = {"chat", "completions", "completion", "responses", "messages", "infill"};

constexpr size_t N_REQUEST_ROUTES = sizeof(REQUEST_ROUTE_NAMES) / sizeof(REQUEST_ROUTE_NAMES[0]);

// The route of a path such as /v1/chat/completions, with any prefix.
request_route route_of(const std::string & path);

enum class request_outcome {
    ok,        // the last result came
    error,     // it ended in any other way
    refused,   // over a rate, no slot or session lock in time, or a plugin said no
    cancelled, // the client left before its end
};

constexpr const char * REQUEST_OUTCOME_NAMES[] = {"ok", "error", "refused", "cancelled"};

constexpr size_t N_REQUEST_OUTCOMES = sizeof(REQUEST_OUTCOME_NAMES) / sizeof(REQUEST_OUTCOME_NAMES[0]);

// Where the tokens of a prompt came from.
enum class token_source { computed, slot, ram, disk, shared, plugins };

constexpr const char * TOKEN_SOURCE_NAMES[] = {"computed", "slot", "ram", "disk", "shared", "plugins"};

constexpr size_t N_TOKEN_SOURCES = sizeof(TOKEN_SOURCE_NAMES) / sizeof(TOKEN_SOURCE_NAMES[0]);

enum class refusal { too_many, exhausted, rate, plugin };

constexpr const char * REFUSAL_NAMES[] = {"too_many", "exhausted", "rate", "plugin"};

constexpr size_t N_REFUSALS = sizeof(REFUSAL_NAMES) / sizeof(REFUSAL_NAMES[0]);

// What a request waits for before its task is posted. With an `atlas` object: the session lock, and slots. Any request:
// leases of other lookups to end, so that the memory may read for it.
enum class request_wait { session_lock, slots, memory };

constexpr const char * REQUEST_WAIT_NAMES[] = {"turn", "contexts", "memory"};

constexpr size_t N_REQUEST_WAITS = sizeof(REQUEST_WAIT_NAMES) / sizeof(REQUEST_WAIT_NAMES[0]);

// Where ATLAS spends time on a request, on its HTTP thread. Waiting (request_wait) does not count.
enum class request_phase { parse, history, lookup, answer, plugins };

constexpr const char * REQUEST_PHASE_NAMES[] = {"parse", "history", "lookup", "answer", "plugins"};

constexpr size_t N_REQUEST_PHASES = sizeof(REQUEST_PHASE_NAMES) / sizeof(REQUEST_PHASE_NAMES[0]);

// Answers that Python adds to, when it does so in time. The order is that of PYTHON_PART_NAMES.
enum class python_part { metrics, status };

constexpr const char * PYTHON_PART_NAMES[] = {"metrics", "status"};

constexpr size_t N_PYTHON_PARTS = sizeof(PYTHON_PART_NAMES) / sizeof(PYTHON_PART_NAMES[0]);

// Any thread. The numbers begin at 0 with the object, and never fall but for in_progress.
class metrics {
  public:
    enum histogram : size_t {
        REQUEST,
        QUEUE,
        PREFILL,
        FIRST_TOKEN,
        INTER_TOKEN,
        RESTORE,
        OVERHEAD,
        OVERHEAD_OF_PHASE, // the first of N_REQUEST_PHASES
        POOL_WAIT    = OVERHEAD_OF_PHASE + N_REQUEST_PHASES, // the first of N_REQUEST_WAITS
        N_HISTOGRAMS = POOL_WAIT + N_REQUEST_WAITS,
    };

    enum counter : size_t {
        REQUESTS,
        CACHE_HITS = REQUESTS + N_REQUEST_ROUTES * N_REQUEST_OUTCOMES * 2,
        CACHE_MISSES,
        ANSWER_TOKENS,
        PROMPT_TOKENS, // the first of N_TOKEN_SOURCES
        REFUSALS   = PROMPT_TOKENS + N_TOKEN_SOURCES,
        N_COUNTERS = REFUSALS + N_REFUSALS,
    };

    static size_t requests(request_route route, request_outcome outcome, bool has_atlas_object) {
        const auto row = static_cast<size_t>(route) * N_REQUEST_OUTCOMES + static_cast<size_t>(outcome);
        return REQUESTS + row * 2 + (has_atlas_object ? 1 : 0);
    }
    static size_t prompt_tokens(token_source from) { return PROMPT_TOKENS + static_cast<size_t>(from); }
    static size_t refusals(refusal why) { return REFUSALS + static_cast<size_t>(why); }
    static size_t pool_wait(request_wait what) { return POOL_WAIT + static_cast<size_t>(what); }
    static size_t overhead(request_phase phase) { return OVERHEAD_OF_PHASE + static_cast<size_t>(phase); }

    // is_on: false records nothing.
    explicit metrics(bool is_on) : values(N_COUNTERS, N_HISTOGRAMS, is_on) {}

    recorder             values;
    std::atomic<int64_t> in_progress{0};
};

// What one result of a request says of its sequence.
struct sequence_result {
    size_t  index         = 0; // of the sequence in its request
    int64_t prompt_tokens = 0;
    int64_t reused_tokens = 0; // tokens of the prompt that were not computed
    int64_t answer_tokens = 0; // so far
    bool    is_partial    = false; // the answer is streamed, and more results follow

    // Only the last result has these: the times from the prefill's start, and from the first token, to the result.
    std::chrono::microseconds since_start{0};
    std::chrono::microseconds since_first_token{0};
    bool                      is_timed = false; // the two are set
};

// The tokens of a request, added up over its sequences, as far as its results have told them. The one count: answers,
// records, rates and metrics are made of it.
struct request_usage {
    int64_t prompt_tokens = 0;
    int64_t reused_tokens = 0; // of these, not computed again
    int64_t answer_tokens = 0;
};

// How long a request took, in milliseconds; NaN: not known.
struct request_times {
    double total       = NAN; // from the parsing of the body
    double overhead    = NAN; // in ATLAS, on the HTTP thread
    double wait        = NAN; // for the session lock, for slots and for the memory
    double queue       = NAN; // from the posting of the task to the start of the prefill, without restore
    double restore     = NAN; // putting state back into the slot
    double prefill     = NAN; // from its start to the first token
    double first_token = NAN; // from the parsing of the body to the first token
    double decode      = NAN; // from the first token to the end
};

// What the meter knows of a request that has ended.
struct metered_request {
    std::string   route;   // as in atlas_requests_total
    std::string   outcome; // likewise
    bool          is_streamed = false;
    request_usage tokens;
    request_times ms;
};

// Records what happens to one request, from its begin to its end; at the latest its destructor is the end. One thread
// at a time.
class request_meter {
  public:
    using clock = std::chrono::steady_clock;

    // is_gone: whether the client has left; asked at the end, may be empty.
    request_meter(metrics & to, request_route route, std::function<bool()> is_gone, clock::time_point began);
    request_meter(const request_meter &)             = delete;
    request_meter & operator=(const request_meter &) = delete;
    ~request_meter();

    // It was put off, and goes on now, for another who may leave: what it waited is not counted.
    void go_on(std::function<bool()> is_gone, clock::time_point began);

    // The request has an `atlas` object.
    void set_atlas_object() { has_atlas_object = true; }

    // Sets how many sequences each prompt has, and whether each is a task of its own, which computes the prompt itself.
    void set_choices(size_t n, bool are_separate);

    // Adds the lookup of the next prompt, whose task is about to be posted.
    void add_prompt(std::shared_ptr<const lookup_result> found, clock::time_point now);

    void add_wait(clock::duration waited) { waits += waited; }
    void add_result(const sequence_result & result, clock::time_point now);
    void refuse(refusal why);

    const request_usage & usage() const { return total; }

    // The last result has come.
    void complete() { outcome = request_outcome::ok; }

    // The request has ended: records what is known only now. A second call does nothing.
    void end();

    // To be called after end(). The time of the restore is not in it.
    metered_request described() const;

  private:
    struct sequence {
        bool              is_prompt_counted = false;
        int64_t           answer_tokens     = 0;
        clock::time_point last_token; // of a streamed answer
    };

    metrics &                      to;
    const request_route            route;
    std::function<bool()>          is_gone;
    clock::time_point              began;
    bool                           has_atlas_object = false;
    std::optional<request_outcome> outcome;

    size_t                                            n_choices    = 1;
    bool                                              are_separate = false;
    std::vector<std::shared_ptr<const lookup_result>> prompts;
    std::vector<sequence>                             sequences;

    clock::duration   waits{0};
    clock::time_point posted;
    clock::time_point first_token;
    clock::time_point ended; // not set: it has not
    request_usage     total;
    bool              is_streamed = false;
    request_times     times;

    // Whether the sequence got the state of its prompt as a copy from the prompt's first sequence.
    bool is_copy(size_t index) const { return !are_separate && index % n_choices != 0; }

    void count_prompt(const sequence_result & result);
    void count_answer(sequence & known, const sequence_result & result, clock::time_point now);
    void record_times(const sequence_result & result, clock::time_point now);
};

} // namespace atlas
