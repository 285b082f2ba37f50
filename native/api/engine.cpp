#include "engine.hpp"

#include "arg.h"
#include "atlas-error.hpp"
#include "atlas-llama-server.h"
#include "atlas-server-state.h"
#include "atlas-slots.h"
#include "common.h"
#include "llama.h"
#include "server-common.h"
#include "server-context.h"
#include "server-http.h"
#include "server-task.h"

#include <map>
#include <stdexcept>
#include <thread>

namespace atlas {

namespace {

common_params parse(llama_model * model, const std::string & model_path, const std::vector<std::string> & arguments) {
    std::vector<std::string> all = {"atlas"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    std::vector<char *> pointers;
    for (auto & argument : all) {
        pointers.push_back(argument.data());
    }
    common_params params;
    if (!common_params_parse((int) pointers.size(), pointers.data(), params, LLAMA_EXAMPLE_SERVER)) {
        throw std::invalid_argument("the arguments are not those of llama-server; the log says which is wrong");
    }
    params.model_borrowed = model;
    params.model.path     = model_path;
    params.fit_params     = false; // what is loaded does not change any more
    params.warmup         = false;
    if (params.model_alias.empty()) {
        char name[256] = "";
        llama_model_meta_val_str(model, "general.name", name, sizeof(name));
        params.model_alias.insert(!model_path.empty() ? params.model.get_name() : *name != 0 ? name : "model");
    }
    if (params.n_parallel < 0) {
        params.n_parallel = 4;
        params.kv_unified = true;
    }
    return params;
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
        reply.next = [from](std::string & piece) { return from->next(piece); };
    }
    return reply;
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

engine::engine(atlas_server_state & state, llama_model * model, const std::string & model_path,
               const std::vector<std::string> & arguments)
    : self(std::make_unique<impl>(state, parse(model, model_path, arguments))) {
    if (!self->context.load_model(self->params)) {
        throw std::runtime_error("no context could be made for the model; the log says why");
    }
    self->routes.update_meta(self->context);
    auto & to      = self->routes;
    self->handlers = {
        {"GET /health", &to.get_health},
        {"GET /v1/models", &to.get_models},
        {"GET /props", &to.get_props},
        {"GET /slots", &to.get_slots},
        {"GET /metrics", &to.get_metrics},
        {"POST /completion", &to.post_completions},
        {"POST /v1/completions", &to.post_completions_oai},
        {"POST /v1/chat/completions", &to.post_chat_completions},
        {"POST /v1/responses", &to.post_responses_oai},
        {"POST /v1/messages", &to.post_anthropic_messages},
        {"POST /infill", &to.post_infill},
        {"POST /v1/embeddings", &to.post_embeddings_oai},
        {"POST /tokenize", &to.post_tokenize},
        {"POST /detokenize", &to.post_detokenize},
        {"POST /apply-template", &to.post_apply_template},
    };
    if (state.runtime) {
        state.runtime->set_model({*self->params.model_alias.begin(), self->params.n_parallel});
    }
    self->loop = std::thread([this] {
        const atlas_state_scope here(self->state);
        self->context.start_loop();
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
    kept->is_gone = request.is_gone ? request.is_gone : [] { return false; };
    kept->request.reset(new server_http_req{{}, {}, request.path, "", request.body, {}, kept->is_gone});
    for (const auto & [name, value] : request.headers) {
        kept->request->headers[name] = value;
    }
    kept->response = atlas_call(*found->second, *kept->request);
    return reply_of({kept, kept->response.get()});
}

} // namespace atlas
