// ATLAS inside your own program: a model that you loaded, with llama-server's engine and routes, the memory that outlives
// restarts, sessions, limits and metrics. No HTTP server is started; atlas-endpoints.hpp adds the routes to one of yours.
//
//     atlas::AtlasServerConfig config;
//     config.enable_memory_persistence = true;
//     config.memory_save_path          = "./atlas_memory";
//
//     atlas::AtlasServer server(config);
//     server.initialize(model);
//     auto answer = server.handle_completion_request({{"prompt", "Once upon a time"}, {"max_tokens", 32}});
//
// JSON is nlohmann::ordered_json, to and from which nlohmann::json converts. Requests and answers are those of llama-server's
// routes; what is wrong with a request is answered as an object with "error", not thrown.
#pragma once

#include "atlas-config.hpp"

#include <nlohmann/json.hpp>

#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

struct llama_model;

namespace atlas {

using json = nlohmann::ordered_json;

// How the engine runs the model.
struct AtlasModelOptions {
    // What llama-server's command line takes, as {"-c", "8192", "--temp", "0"}, but what loads the model or serves HTTP.
    // Without "-np" there are as many sequences as the pool has contexts, in one KV cache that they share.
    std::vector<std::string> arguments;

    // The file that the model was loaded from. With it, state is found again that llama-server kept of the same file, and the
    // other way round. Empty: the weights are hashed where they are, which takes about as long.
    std::string model_path;
};

// One request, as an HTTP server would hand it on.
struct AtlasRequest {
    std::string                                      method = "POST";
    std::string                                      path; // as "/v1/chat/completions"
    std::string                                      query; // what follows ?
    std::string                                      body;
    std::vector<std::pair<std::string, std::string>> headers; // names in any case

    // Whether whoever asked has left: what was begun for it ends then. Called a few times a second, by any thread, until the
    // answer is complete; may be empty.
    std::function<bool()> is_gone;
};

struct AtlasResponse {
    int                                              status = 200;
    std::string                                      content_type;
    std::string                                      body; // where it is streamed, what comes first
    std::vector<std::pair<std::string, std::string>> headers;

    // Set where the answer is streamed: gives the next piece; false with the last one. By one thread at a time. Destroying it,
    // with all its copies, ends what is still running. It must not outlive the AtlasServer.
    std::function<bool(std::string & piece)> next;
};

// A model with all that ATLAS does for it. Any number may live in one process, of one model or of several. Members may be
// called by any thread once initialize() has returned, but for destruction.
class AtlasServer {
  public:
    // Environment variables are not read; AtlasServerConfig::from_environment() does.
    explicit AtlasServer(AtlasServerConfig config = {});

    // Waits for what runs, at most config.shutdown_timeout_s seconds; makes durable what is not. Answers that are waited for
    // end with an error. No answer's `next` may be called any more.
    ~AtlasServer();

    AtlasServer(const AtlasServer &)             = delete;
    AtlasServer & operator=(const AtlasServer &) = delete;

    // Makes the contexts, opens the memory, starts Python where this build has it. Once. The model is borrowed: free it after
    // this object. Throws std::invalid_argument for a setting or an argument, std::runtime_error for what does not work.
    void initialize(llama_model * model, const AtlasModelOptions & options = {});

    // A chat where it has "messages", else a completion. Blocks until it is complete; "stream" is refused.
    json handle_completion_request(const json & request);

    // The same, piece by piece: each is one JSON object of the stream. Ends early where on_chunk returns false. Returns the
    // error, or null. on_chunk is called by the calling thread.
    json handle_streaming_request(const json & request, const std::function<bool(const json & chunk)> & on_chunk);

    json handle_metrics_request();
    json handle_status_request();

    // The settings. With changes, an object by the settings' names: all of them are made, or none.
    json handle_config_request(const json & changes = nullptr);

    // operation: "save", "load", "list", "delete", "pin", "unpin" or "flush".
    json handle_memory_request(const std::string & operation, const json & request = json::object());

    // Any route of llama-server's that needs no HTTP server, or of /v1/atlas. Never throws.
    AtlasResponse handle(const AtlasRequest & request);

    // The pool: sequences that requests may hold at once. Fewer from now on, or as many as there were at first: what is above
    // that throws std::invalid_argument. Returns at once; who holds one keeps it.
    void resize_pool(int n_contexts);
    int  pool_size() const;
    int  pool_in_use() const;

  private:
    struct impl;
    std::unique_ptr<impl> self;
};

} // namespace atlas
