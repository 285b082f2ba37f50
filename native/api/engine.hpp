// llama-server's engine without its HTTP server: slots, batching, sampling, chat templates, and all of its routes as calls.
#pragma once

#include "atlas-http.hpp"

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

struct atlas_server_state;
struct llama_model;

namespace atlas {

struct engine_request {
    std::string                                      method; // "GET" or "POST"
    std::string                                      path; // without a query
    std::string                                      query; // what follows ?
    std::string                                      body;
    std::vector<std::pair<std::string, std::string>> headers;

    // Whether nobody waits for the answer any more; may be empty. Not asked again once it was so; what it throws counts as so.
    std::function<bool()> is_gone;
};

// Members may be called from any thread that has an atlas_state_scope.
class engine {
  public:
    // state, model: borrowed; have to outlive this object. model_path: of the file that the model was loaded from, or empty.
    // arguments: as of llama-server's command line, as {"-c", "8192"}; nothing that is about HTTP matters. n_slots: how many
    // there are where the arguments do not say. Throws std::invalid_argument, and std::runtime_error where no context can be
    // made.
    engine(atlas_server_state & state, llama_model * model, const std::string & model_path,
           const std::vector<std::string> & arguments, int n_slots);

    ~engine();

    engine(const engine &)             = delete;
    engine & operator=(const engine &) = delete;

    // Answers as llama-server does, what a handler throws too; a path that it does not know with 404. A streamed answer has
    // `next`, which must not outlive this object.
    http_response handle(const engine_request & request);

    // Ends the loop, after what it computed was written back. Who waits for a result gets an error where
    // state.ending.has_begun; may be called twice.
    void stop();

    int n_slots() const;

  private:
    struct impl;
    std::unique_ptr<impl> self;
};

} // namespace atlas
