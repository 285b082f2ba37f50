// ATLAS as one object: what a server holds for as long as it runs. Knows nothing of any server's own types.
#pragma once

#include "atlas-background.hpp"
#include "atlas-call-limits.hpp"
#include "atlas-call-texts.hpp"
#include "atlas-ewma-cost.hpp"
#include "atlas-http.hpp"
#include "atlas-lookup-result.hpp"
#include "atlas-memory.hpp"
#include "atlas-own-routes.hpp"
#include "atlas-policy-runner.hpp"
#include "atlas-python.hpp"
#include "atlas-request-admission.hpp"
#include "atlas-request.hpp"
#include "atlas-root-status.hpp"
#include "atlas-seal.hpp"
#include "atlas-settings.hpp"
#include "atlas-shared-records.hpp"
#include "atlas-timely-calls.hpp"
#include "atlas-write-back-passes.hpp"
#include "plugin-tiers.hpp"

#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace atlas {

struct listed_tier;
struct metric_family;

// What the embedding server tells about itself, for the status route.
struct model_info {
    std::string name;
    int         n_slots = 0;
};

class runtime {
  public:
    // server_version: the version text of the embedding server. options: where the Python of this build is; without a
    // module it has none.
    runtime(settings settings, std::string server_version, python_options options);

    std::shared_ptr<const AtlasServerConfig> config() const { return all_settings.values(); }

    // Opens the memory (ram_bytes: the budget of tier 1 where the settings have none), then starts Python and the
    // plugins. Call it from the main thread, before requests. has_model: whether this process itself serves a model; a
    // router does not, and gets no memory. Logs why when there is no Python. Returns false when the server must not
    // start (require_python). Throws std::runtime_error and std::invalid_argument, which name the setting, where a key cannot
    // be had, or is not that of the memory path.
    bool start(bool has_model, uint64_t ram_bytes, const tenant_options & who);

    // What decides what stays in the memory, where the program has a policy: Python's is not asked then. Before start().
    void set_memory_policy(std::shared_ptr<AtlasMemoryPolicy> policy) { memory_policy = std::move(policy); }

    // Tells that a model is loaded. Any thread.
    void set_model(const model_info & model);

    // Lets a request that has begun go on, as far as rates allow it, and notes what it cannot have. To be called once its
    // options are settled. Throws atlas::error. Any thread.
    void let_in(request & request);

    request_admission & gate() { return requests; }

    // The plugins' hooks on the path of requests.
    hook_calls & hooks() { return embedded.hooks(); }

    // The server's own routes, for plugins: to be opened once the model is loaded.
    own_routes & routes() { return for_plugins; }

    // Whether conversations of sessions are kept, and can be asked for. Any thread.
    bool keeps_conversations() const;

    // Whether those that clients send whole are recorded. Any thread.
    bool records_clients() const { return keeps_conversations() && config()->record_conversations; }

    struct recorded {
        std::string messages;   // a JSON array
        std::string answers;    // those that are known token by token, as exact_answers_of() takes them
        std::string degraded;   // why other servers may have more; empty: they have not
        std::string referenced; // a JSON array: the items that were asked for
    };

    // The messages that a session recorded; and those that are to be put behind them, with the exact_answer among them (JSON, or
    // null), durable on return, which returns why other servers do not have them yet: empty: they do. session: as qualified by
    // its tenant. Throw atlas::error. Any thread but the loop's: they enter Python, and may wait for the network.
    recorded    recorded_messages(const std::string & session);
    std::string record_messages(const std::string & session, const std::string & messages, const std::string & exact);

    // The same of a conversation, and those of its items that references (a JSON array of ids) names. 404 where there is none.
    recorded recorded_conversation(const std::string & session, const std::string & references);

    // Whether responses are kept whose requests do not say otherwise. Any thread.
    bool keeps_responses() const { return keeps_conversations() && config()->store_responses; }

    // Those that are made in the background.
    background_responses & background() { return in_background; }

    // The model's name, once it is loaded. Any thread.
    std::string model_name();

    // Why neither these are kept nor chat completions, for clients and the log; empty: they are. Any thread.
    std::string why_not_stored() const;

    struct response_items {
        std::string items; // a JSON array: of the response and of all that it goes on from, oldest first
        std::string referenced;
        std::string answers; // those that are known token by token, as exact_answers_of() takes them
        std::string first; // the name of the oldest
    };

    // What a response that is kept was about; and a response that is to be kept, with the items of its request and its
    // exact_answer (JSON, or null), and put behind the conversation that session names (empty: none): durable on return, which
    // returns why it is not in the conversation, or other servers do not have it. last_event: where its events can be asked for,
    // the number of the last; else below 0. Throw atlas::error, 404 where there is none. Any thread but the loop's: they enter
    // Python.
    response_items items_of_response(const std::string & tenant, const std::string & id,
                                     const std::string & references);
    std::string    keep_response(const std::string & tenant, const std::string & session, const std::string & input,
                                 const std::string & response, const std::string & exact, int64_t last_event = -1);

    // The same for a chat completion, with the messages of its request as a JSON array.
    void keep_completion(const std::string & tenant, const std::string & messages, const std::string & completion);

    // The memory, or nullptr when the process serves no model or conversations_off() says why. Lives as long as this object.
    memory_store * memory() { return store.get(); }

    // The loop's and the flushing threads' side of writing back.
    write_back_passes & write_backs() { return loop_write_backs; }

    // Under which root the loaded model's state is kept. Lives as long as this object.
    root_status & root() { return memory_root; }

    // What the model wrote of its tool calls. Any thread but the loop's.
    call_texts written_calls;

    // What computing a token of a prompt takes. Any thread.
    ewma_cost prefill;

    // Counts how one task fared. Never waits: for the token loop.
    void count_restore(const restore_outcome & how);

    // Answers a request to /v1/atlas/…. Never throws. Any thread.
    http_response handle(const http_request & request);

    // Makes durable what is not and ends Python, within the shutdown timeout for each. Returns whether every call into
    // Python came to an end.
    bool stop();

  private:
    void check_kept(const std::string & wanted) const;

    // The answer to ATLAS_QUERY_CONVERSATIONS: of one session, or as many as there may be at once. They leave the queue.
    std::string take_conversations(std::string_view session);

    settings          all_settings;
    request_admission requests{all_settings};
    std::string       server_version;
    python_options    python_where;

    // Before what Python asks with it.
    std::shared_ptr<const sealer> seal; // of what is under the memory path; null: it is not encrypted
    std::string                   tenants_notice;

    std::unique_ptr<shared_records> records; // that servers share; null: they share none

    python       embedded;
    plugin_tiers brought{embedded.tiers()};
    std::string  python_problem; // why there is no Python; empty when there is
    bool         serves_model = true; // not a router

    const std::chrono::steady_clock::time_point started = std::chrono::steady_clock::now();

    std::mutex model_mutex;
    model_info model;
    bool       model_loaded = false;

    std::unique_ptr<memory_store>      store;
    std::shared_ptr<AtlasMemoryPolicy> memory_policy; // until there is a memory
    std::unique_ptr<policy_runner>     policy; // empty: Python decides
    write_back_passes                  loop_write_backs;
    root_status                        memory_root{memory_path()};

    // By result and tier, 0: none.
    std::array<std::array<std::atomic<uint64_t>, N_TIERS + 1>, N_RESTORE_RESULTS> restores = {};

    own_routes  for_plugins;
    call_limits calls;

    background_responses in_background{
        [this] { return background_limits{config()->background_running, config()->background_waiting}; }};

    timely_calls python_calls; // of what is answered without Python, too

    std::array<std::atomic<uint64_t>, N_PYTHON_PARTS> late = {}; // answers without Python's part

    // Where the memory keeps files; empty: nowhere.
    std::string memory_path() const;

    // Returns why there is no Python; empty where there is.
    std::string start_python();

    void set_tenants(const tenant_options & who);

    http_response answer(const http_request & request);
    http_response flush(const http_request & request);

    std::optional<std::string> query(int32_t what, std::string_view argument);
    std::optional<std::string> ask(std::string_view argument);
    std::string                change_settings(const std::string & changes);
    std::string                status_json();
    std::vector<metric_family> families();
    std::vector<listed_tier>   listed(const memory_stats & stats) const; // where there is a memory

    // Python's answer, or nothing where it did not come in time, which is counted.
    std::optional<http_response> ask_python(python_part part, http_request request);
    http_response                show_status(const http_request & request);
    http_response                show_own_status(bool is_admin, const std::string & problem);
    http_response                show_metrics(http_request request);
};

} // namespace atlas
