// llama-server's engine without its HTTP server: slots, batching, sampling, chat templates, and all of its routes as calls.
#pragma once

#include "atlas-http.hpp"

#include <functional>
#include <memory>
#include <string>

struct atlas_server_state;
struct common_params;

namespace atlas {

// Members may be called from any thread that has an atlas_state_scope.
class engine {
  public:
    // state, and the model in params: borrowed; have to outlive this object. n_pool: how many contexts the pool has at first,
    // where no setting says. Throws std::runtime_error where no context can be made.
    engine(atlas_server_state & state, common_params && params, int n_pool);

    ~engine();

    engine(const engine &)             = delete;
    engine & operator=(const engine &) = delete;

    // Answers as llama-server does, what a handler throws too; a path that it does not know with 404. A streamed answer has
    // `next`, which must not outlive this object.
    // is_gone: whether nobody waits for the answer any more; may be empty. Not asked again once it was so; what it throws
    // counts as so.
    http_response handle(const http_request & request, std::function<bool()> is_gone);

    // Ends the loop, after what it computed was written back. Who waits for a result gets an error where
    // state.ending.has_begun; may be called twice.
    void stop();

    int n_slots() const;

  private:
    struct impl;
    std::unique_ptr<impl> self;
};

} // namespace atlas
