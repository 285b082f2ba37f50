#include "engine.hpp"

#include "atlas-asleep.h"
#include "atlas-error.hpp"
#include "atlas-llama-server.h"
#include "atlas-log.hpp"
#include "atlas-server-state.h"
#include "atlas-slots.h"
#include "atlas-stack.hpp"
#include "common.h"
#include "llama.h"
#include "server-common.h"
#include "server-context.h"
#include "server-http.h"
#include "server-task.h"

#include <cpp-httplib/httplib.h>

#include <atomic>
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

// What upstream's HTTP server makes of a handler that throws.
std::unique_ptr<server_http_res> call(const server_http_context::handler_t & handler, const server_http_req & request) {
    const auto failed = [](const char * message, enum error_type type) {
        const auto error    = format_error_response(message, type);
        auto       response = std::make_unique<server_http_res>();
        response->status    = json_value(error, "code", 500);
        response->data      = safe_json_to_str({{"error", error}});
        return response;
    };
    try {
        return atlas_call(handler, request);
    } catch (const std::invalid_argument & error) {
        return failed(error.what(), ERROR_TYPE_INVALID_REQUEST);
    } catch (const std::exception & error) {
        return failed(error.what(), ERROR_TYPE_SERVER);
    }
}

http_response reply_of(std::shared_ptr<server_http_res> from) {
    http_response reply;
    reply.status       = from->status;
    reply.content_type = from->content_type;
    reply.body         = std::move(from->data);
    for (const auto & [name, value] : from->headers) {
        reply.headers.emplace_back(name, value);
    }
    if (from->is_stream()) {
        reply.next = [from](std::string & piece) {
            std::string more; // upstream's replaces what it is given
            const bool  has_more = from->next(more);
            piece += more;
            return has_more;
        };
    }
    return reply;
}

// Upstream asks again after it was told so, and ends the process where the second answer is another.
std::function<bool()> asked_until_gone(std::function<bool()> is_gone) {
    if (!is_gone) {
        return [] { return false; };
    }
    return [is_gone = std::move(is_gone), was_gone = std::make_shared<std::atomic<bool>>(false)] {
        try {
            *was_gone = *was_gone || is_gone();
        } catch (...) {
            *was_gone = true;
        }
        return was_gone->load();
    };
}

} // namespace

struct engine::impl {
    impl(atlas_server_state & state, common_params && parsed)
        : state(state), params(std::move(parsed)), routes(params, context) {}

    atlas_server_state &                                    state;
    common_params                                           params;
    server_context                                          context;
    server_routes                                           routes;
    std::map<std::string, server_http_context::handler_t *> handlers;
    std::thread                                             loop;
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
    self->handlers      = {
#define ATLAS_GET(path, handler)  {"GET " path, &to.handler},
#define ATLAS_POST(path, handler) {"POST " path, &to.handler},
#include "atlas-routes.def"
#undef ATLAS_GET
#undef ATLAS_POST
    };
    if (state.runtime) {
        state.runtime->set_model({*self->params.model_alias.begin(), n_pool});
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

http_response engine::handle(const engine_request & request) {
    const auto found = self->handlers.find(request.method + " " + request.path);
    if (found == self->handlers.end()) {
        return error_response(404, "there is no " + request.method + " " + request.path);
    }
    // the request has to live as long as its streamed answer, which asks it whether somebody still reads
    struct exchange {
        std::function<bool()>            is_gone;
        std::unique_ptr<server_http_req> request;
        std::unique_ptr<server_http_res> response;
    };
    auto kept     = std::make_shared<exchange>();
    kept->is_gone = asked_until_gone(request.is_gone);
    kept->request.reset(new server_http_req{
        parameters_of(request.query), {}, request.path, request.query, request.body, {}, kept->is_gone});
    for (const auto & [name, value] : request.headers) {
        kept->request->headers[name] = value;
    }
    kept->response = call(*found->second, *kept->request);
    return reply_of({kept, kept->response.get()});
}

} // namespace atlas
