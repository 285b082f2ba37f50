#include "engine.hpp"

#include "atlas-asleep.h"
#include "atlas-background.h"
#include "atlas-inside.h"
#include "atlas-llama-server.h"
#include "atlas-log.hpp"
#include "atlas-server-state.h"
#include "atlas-slots.h"
#include "atlas-stack.hpp"
#include "common.h"
#include "llama.h"
#include "server-context.h"

#include <cpp-httplib/httplib.h>

#include <map>
#include <stdexcept>
#include <thread>

namespace atlas {

namespace {

// Names and values of a URL's query, decoded.
std::map<std::string, std::string> parameters_of(const std::string & query) {
    std::map<std::string, std::string> parameters;
    for (const auto & pair : string_split<std::string>(query, '&')) {
        const size_t equals = pair.find('=');
        if (!pair.empty()) {
            parameters[httplib::decode_query_component(pair.substr(0, equals))] =
                equals == std::string::npos ? "" : httplib::decode_query_component(pair.substr(equals + 1));
        }
    }
    return parameters;
}

} // namespace

struct engine::impl {
    impl(atlas_server_state & state, common_params && parsed)
        : state(state), params(std::move(parsed)), routes(params, context) {}

    atlas_server_state & state;
    common_params        params;
    server_context       context;
    server_routes        routes;
    atlas_route_table    handlers;
    std::thread          loop;
};

engine::engine(atlas_server_state & state, common_params && params, int n_pool)
    : self(std::make_unique<impl>(state, std::move(params))) {
    if (!self->context.load_model(self->params)) {
        throw std::runtime_error("no context could be made for the model; the log says why");
    }
    self->routes.update_meta(self->context);
    auto & to = self->routes;
    if (state.runtime) {
        to.get_metrics = atlas_with_metrics(*state.runtime, state.sleep, to.get_metrics);
        if (self->params.endpoint_slots) {
            to.get_slots = atlas_with_slots_asleep(state.sleep, to.get_slots);
        }
    }
    state.keeps_streams = false; // upstream has one register of them a process, which its HTTP server clears
    if (state.runtime) {
        to.post_responses_tok_oai = atlas_with_earlier_counted(to.post_responses_tok_oai);
    }
    self->handlers = atlas_routes_of(to);
    state.routes   = self->handlers;
    if (state.runtime) {
        state.runtime->set_model({*self->params.model_alias.begin(), n_pool});
        state.runtime->routes().open(atlas_calls_of_plugins(state, self->handlers));
    }
    self->loop = std::thread([this] {
        const atlas_state_scope here(self->state);
        own_stack(); // the loop need not read where it ends
        try {
            self->context.start_loop();
        } catch (const std::exception & problem) { // it slept, and cannot wake
            log(LogLevel::ERROR, std::string("the server answers 503 from now on: ") + problem.what());
            self->state.ending.has_begun = true; // for who waits for a result
            self->context.terminate();
        }
        atlas_end_loop();
    });
}

void engine::stop() {
    if (self->loop.joinable()) {
        self->context.terminate();
        self->loop.join();
    }
}

engine::~engine() { stop(); }

int engine::n_slots() const { return self->params.n_parallel; }

http_response engine::handle(const http_request & request, std::function<bool()> is_gone) {
    return atlas_call_inside(self->handlers, request, parameters_of(request.query), std::move(is_gone));
}

} // namespace atlas
