// Where llama-server meets ATLAS.
//
// The seams in llama-server are one-line calls of the functions below and in the other headers of this directory; what knows
// nothing of llama-server's own types is in native/core.
#pragma once

#ifdef LLAMA_ATLAS

#include "json.h"

#include <cstddef>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

class atlas_posting;
struct atlas_server_state;
class atlas_sleep;
struct common_params;
struct server_http_context;
struct server_http_req;
struct server_http_res;
struct server_routes;
struct server_task;
struct server_task_result;

using atlas_handler = std::function<std::unique_ptr<server_http_res>(const server_http_req & req)>;

namespace atlas {
struct http_response;
class request;
class runtime;
} // namespace atlas

// That of atlas_state(), empty when ATLAS takes no part. Set before the HTTP server starts and never unset: requests may be
// running until the end.
std::unique_ptr<atlas::runtime> & atlas_active();

std::unique_ptr<server_http_res> atlas_server_response(atlas::http_response && from);

// server.cpp, before the command line is parsed: has it know the --atlas-… options.
void atlas_prepare_options();

// server.cpp: one per run of the server; does nothing in a server that runs inside the CLI or with ATLAS_ENABLED=0.
class atlas_server {
  public:
    atlas_server();

    // Settles the settings, opens the memory and starts Python. Returns false when the server must not start; the log
    // says why.
    // An admin key is added to the API keys, where there are any.
    bool start(common_params & params, bool is_run_by_cli);

    // Registers the routes under /v1/atlas, has llama-server's own metrics be followed by ours, and its slots be shown
    // without waking it. In a router, get and post pass a request on to the server of the model that it names; else they
    // are empty.
    void add_routes(const server_http_context & ctx_http, server_routes & routes, const atlas_handler & get,
                    const atlas_handler & post) const;

    // The model is loaded; n_slots may be 0 in a router.
    void ready(const std::string & model_name, int n_slots) const;

    // After the loop of tasks has ended: writes back what the slots hold, answers who still waits for a result, makes
    // the memory durable, ends Python, after which no call reaches it, and waits for the streams. Ends the process by
    // itself when a Python call hangs, or when requests keep the server from ending for the shutdown timeout: with 0,
    // or 1 when nobody asked for the end.
    static void stop();

  private:
    atlas_server_state & state; // outlives this
};

// Upstream's handler of GET /metrics with our metrics behind its own, where it shows any. Both others have to outlive it.
atlas_handler atlas_with_metrics(atlas::runtime & runtime, const atlas_sleep & sleep, const atlas_handler & stock);

// Whether the model is unloaded for want of requests, and what GET /slots shows then. Any thread.
void atlas_set_asleep(bool is_so, const common_json & slots);

// server-context.cpp, before it is unloaded or loaded again: the same; each slot says what it shows, without its texts.
template <typename slot> void atlas_set_asleep(bool is_so, const std::vector<slot> & slots) {
    common_json shown = common_json::array();
    for (const auto & each : slots) {
        shown.push_back(each.to_json(/* only_metrics */ true));
    }
    atlas_set_asleep(is_so, shown);
}

// server.cpp: wraps a shutdown handler so that a signal handler may call it. Upstream's locks the mutex of the task queue;
// when the signal interrupts the loop while it holds that, the process hangs and the signal is lost. After the first signal
// a second one ends the process at once. end_models: of a router, to be called before: the clients of its models get their
// last answers through it; else empty.
std::function<void(int)> atlas_defer_from_signal(std::function<void(int)> handler, std::function<void()> end_models);

// Has exit() end the process before any destructor runs: threads of plugins and of the memory live on.
void atlas_end_without_destructors();

// server-queue.cpp, with the queue's mutex: whether a server that sleeps has to wake for its tasks, as somebody waits for the
// result. Who has only looked whether it sleeps, or has left, does not.
bool atlas_wakes(const std::deque<server_task> & tasks);

// server-queue.cpp: for who waits for a server to wake. Throws atlas::error where the loop of tasks has ended: it never will.
void atlas_refuse_at_end(bool running);

// server-queue.cpp: what a reader gets that waits in vain, as the loop of tasks has ended; before that nullptr.
std::unique_ptr<server_task_result> atlas_result_at_end();

// server-stream.cpp: whether the answer is kept under its conversation's id: it was to be streamed, and this server keeps them.
bool atlas_is_streamed(const server_http_req & req);

// server-http.cpp: whether a request to the path, as it came in, needs no API key: the dashboard's page, which asks for one.
bool atlas_is_public(const std::string & path);

// Whether a request's path, as it came in, is /v1/atlas or below it.
bool atlas_owns_path(const std::string & path);

// Whether the path of a response with status 400 or more belongs to ATLAS, so that upstream's error handler must leave it
// alone. Gives an error that the server itself made (401, 404, 503, …) the ATLAS format.
bool atlas_format_error(const std::string & path, int status, std::string & body);

// server.cpp, ex_wrapper: what the handler answers, or the answer to an atlas::error. A body that is no JSON or whose fields
// are not of the type they must be, and one that names a token that does not exist, gets 400 in upstream's format; both are
// 500 in stock. Throws what else the handler throws.
std::unique_ptr<server_http_res> atlas_call(const atlas_handler & handler, const server_http_req & req);

// server-context.cpp: parses the body of a completion request, takes its `atlas` object out of it, and begins what ATLAS
// keeps about the request. Throws what parsing throws, and atlas::error.
common_json atlas_parse_body(const server_http_req & req);

// The API key that a request came with; empty: none.
std::string atlas_presented_key(const std::map<std::string, std::string> & headers);

// server-stream.cpp: a conversation's name as only clients with the same API key can name it. The name itself where keys
// do not separate; an empty name gives what stands before all of the client's.
std::string atlas_own_name(const std::map<std::string, std::string> & headers, const std::string & name);

// server-context.cpp: waits until the completion may go on, and says to what posts its tasks how many of them may be with
// the queue at once. Returns what the response has to hold until it ends. Throws atlas::error.
std::shared_ptr<atlas::request> atlas_admit(atlas_posting & posting, const server_http_req & req,
                                            const common_json & data);

// The same for the response: res.rd reads the results.
template <typename response> void atlas_admit(response & res, const server_http_req & req, const common_json & data) {
    res.atlas = atlas_admit(res.rd.posting, req, data);
}

// server-context.cpp: notes one result; on the last one of a request that had an `atlas` object puts that of the answer
// into its JSON (an object, or an array whose last entry takes it). A request that is null has none.
void atlas_on_result(const std::shared_ptr<atlas::request> & request, const server_task_result & result,
                     common_json & json, bool is_last);

// The same for all results of an answer that is not streamed, and the array of their JSON. Some types of it are merged into
// the first. type: a task_response_type.
void atlas_on_results(const std::shared_ptr<atlas::request> &                  request,
                      const std::vector<std::unique_ptr<server_task_result>> & results, common_json & json, int type);

#endif // LLAMA_ATLAS
