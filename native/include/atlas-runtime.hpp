// ATLAS as one object: what a server holds for as long as it runs. Knows nothing of any server's own types.
#pragma once

#include "atlas-config.hpp"
#include "atlas-http.hpp"
#include "atlas-python.hpp"
#include "atlas-request.hpp"

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <string>

namespace atlas {

// What the embedding server tells about itself, for the status route.
struct model_info {
    std::string name;
    int         context_pool_size = 0; // slots
};

class runtime {
  public:
    // server_version: the version text of the embedding server. options: where the Python of this build is.
    runtime(settings settings, std::string server_version, python_options options);

    // Starts Python and the plugins; call it from the main thread, before requests. Logs why when there is no Python.
    // Returns false when the server must not start (require_python).
    bool start();

    // Tells that a model is loaded. Any thread.
    void set_model(const model_info & model);

    // Begins a completion request from the JSON text of its `atlas` object. Throws atlas::error. Any thread.
    std::unique_ptr<request> begin_request(const std::string & json, request::clock::time_point began);

    // Answers a request to /v1/atlas/…. Never throws. Any thread.
    http_response handle(const http_request & request);

    // Ends Python within the shutdown timeout. Returns whether every call into it came to an end.
    bool stop();

  private:
    settings       all_settings;
    std::string    server_version;
    python_options python_where;
    python         embedded;
    std::string    python_problem; // why there is no Python; empty when there is

    const std::chrono::steady_clock::time_point started = std::chrono::steady_clock::now();

    std::mutex model_mutex;
    model_info model;
    bool       model_loaded = false;

    std::string query(int32_t what);
    std::string status_json();
};

} // namespace atlas
