/// @file
/// ATLAS inside your own program: a model that you loaded, with llama-server's engine and routes, the memory that outlives
/// restarts, sessions, limits and metrics. No HTTP server is started; atlas-endpoints.hpp adds the routes to one of yours.
///
///     atlas::AtlasServerConfig config;
///     config.enable_memory_persistence = true;
///     config.memory_save_path          = "./atlas_memory";
///
///     atlas::AtlasServer server(config);
///     server.initialize(model);
///     auto answer = server.handle_completion_request({{"prompt", "Once upon a time"}, {"max_tokens", 32}});
///
/// JSON is nlohmann::ordered_json, to and from which nlohmann::json converts. Requests and answers are those of llama-server's
/// routes; what is wrong with a request is answered as an object with "error", not thrown.
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

class AtlasMemoryPolicy; // atlas-memory-policy.hpp

/// What requests and answers are; members stay in the order in which they were added.
using json = nlohmann::ordered_json;

/// How the engine runs the model.
struct AtlasModelOptions {
    /// What llama-server's command line takes, as {"-c", "8192", "--temp", "0"}, but what loads the model or serves HTTP.
    /// Without "-np" there are as many sequences as the pool has contexts, or max_contexts, in one KV cache that they share.
    std::vector<std::string> arguments;

    /// The file that the model was loaded from. With it, state is found again that llama-server kept of the same file, and the
    /// other way round. Empty: the weights are hashed where they are, which takes about as long.
    std::string model_path;

    /// Decides what stays in the memory, in place of Python's plugins. Empty: the plugins do. Without a memory it is not called.
    std::shared_ptr<AtlasMemoryPolicy> memory_policy = nullptr;

    /// How large resize_pool() may make the pool: not below its first size, up to llama_max_parallel_sequences(), and not
    /// together with "-np". So many sequences are made at the start. 0: as large as the pool is at first.
    int max_contexts = 0;
};

/// One request, as an HTTP server would hand it on.
struct AtlasRequest {
    std::string                                      method = "POST"; ///< "GET", "POST" or "DELETE"
    std::string                                      path; ///< as "/v1/chat/completions"
    std::string                                      query; ///< what follows ?, as it is in the URL
    std::string                                      body; ///< UTF-8
    std::vector<std::pair<std::string, std::string>> headers; ///< names in any case

    /// Whether whoever asked has left: what was begun for it ends then, and what is answered means nothing. Called about once
    /// a second, and more often while the request waits for a context, by the thread that is in handle() or in `next`, until
    /// the answer is complete or it was so once. What it throws counts as true. Of routes of /v1/atlas it is not asked. May be
    /// empty; may call any server but for ending it.
    std::function<bool()> is_gone;
};

/// What handle() answers. It is the caller's.
struct AtlasResponse {
    int                                              status = 200; ///< of HTTP
    std::string                                      content_type; ///< of HTTP, as "application/json"
    std::string                                      body; ///< where it is streamed, what comes first
    std::vector<std::pair<std::string, std::string>> headers; ///< further ones, as {"Retry-After", "1"}

    /// Set where the answer is streamed: appends the next piece to what it is given; false with the last one, and after it. By
    /// one thread at a time. Destroying it, with all its copies, ends what is still running. It may outlive the AtlasServer,
    /// which ends it: it is false then. Until it is read to its end or destroyed it holds a context of the pool.
    std::function<bool(std::string & piece)> next;
};

/// A model with all that ATLAS does for it. Any number may live in one process, of one model or of several. Members may be
/// called by any thread once initialize() has returned, but for destruction; a thread that is in a member of one may call those
/// of another, or of the same. All servers of a process write to llama.cpp's log, as the settings say that came last.
class AtlasServer {
  public:
    /// Only copies the settings: initialize() checks them. Environment variables are not read; AtlasServerConfig::from_environment()
    /// does.
    explicit AtlasServer(AtlasServerConfig config = {});

    /// Makes durable what is not, and ends Python's part, each within config.shutdown_timeout_s seconds. Threads that are in a
    /// member are waited for: answers that they wait for end with an error, 503. None may call a member from now on; what
    /// calls of its own accord (on_chunk, is_gone) must not destroy the server that calls it. A call of the memory policy is
    /// waited for, too.
    ~AtlasServer();

    AtlasServer(const AtlasServer &)             = delete;
    AtlasServer & operator=(const AtlasServer &) = delete;

    /// Makes the contexts, opens the memory, starts Python where this build has it. Once; but it may be called again after it
    /// threw, which leaves nothing behind. By any thread. The model is borrowed: free it after this object. Throws
    /// std::invalid_argument for a setting or an argument, which it names, and for no model; std::runtime_error for what does
    /// not work. A memory path that cannot be used does not throw: handle_status_request() tells of it, as llama-server does.
    /// State on the disk is found a moment later: once status has memory.root, and memory.disk.index_complete is true.
    /// Arguments that only print something ("--help") are refused. LLAMA_ARG_… variables are read, as arguments that come before.
    void initialize(llama_model * model, const AtlasModelOptions & options = {});

    /// A chat where it has "messages", else a completion. Blocks until it is complete; "stream" is refused. This and the next
    /// refuse what could not be JSON of HTTP, as text that is not UTF-8, with an error that names the field. Does not throw.
    json handle_completion_request(const json & request);

    /// The same, piece by piece: each is one JSON object of the stream. Ends early where on_chunk returns false. Returns the
    /// error, or null. on_chunk is called by the calling thread; it may call any server. What it throws is passed on, after the
    /// request has ended.
    json handle_streaming_request(const json & request, const std::function<bool(const json & chunk)> & on_chunk);

    /// What GET /v1/atlas/metrics answers; times are in milliseconds, sizes in bytes. Does not throw.
    json handle_metrics_request();

    /// What GET /v1/atlas/status answers. Does not throw.
    json handle_status_request();

    /// The settings. With changes, an object by the settings' names: all of them are made, or none. Does not throw.
    json handle_config_request(const json & changes = nullptr);

    /// operation: "save", "load", "list", "delete", "pin", "unpin" or "flush"; requests and answers are those of
    /// POST /v1/atlas/memory/… . "flush" blocks until what was computed is durable. Does not throw.
    json handle_memory_request(const std::string & operation, const json & request = json::object());

    /// Any route of llama-server's that needs no HTTP server, or of /v1/atlas. Never throws.
    AtlasResponse handle(const AtlasRequest & request);

    /// The pool: sequences that requests may hold at once. From now on it has n_slots, 1 to options.max_contexts, or to as many as
    /// there were at first: else std::invalid_argument. Returns at once; who holds one keeps it, and who waits for one gets it.
    /// Without ATLAS (config.enabled is false) there is no pool: its size is 0. pool_in_use() may be above the size, since
    /// requests without an `atlas` object take any sequence that is free, or wait for one.
    void resize_pool(int n_slots);

    /// How many sequences requests may hold at once. Does not throw.
    int pool_size() const;

    /// How many they hold now. Does not throw.
    int pool_in_use() const;

  private:
    struct impl;
    std::unique_ptr<impl> self;
};

} // namespace atlas
