#include "atlas-server.hpp"

#include "atlas-error.hpp"
#include "atlas-in-effect.hpp"
#include "atlas-llama-server.h"
#include "atlas-log.hpp"
#include "atlas-request-admission.hpp"
#include "atlas-runtime.hpp"
#include "atlas-server-state.h"
#include "atlas-settings.hpp"
#include "atlas-slots.h"
#include "common.h"
#include "engine.hpp"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>

namespace atlas {

namespace {

// Counts what may not outlive the server.
class open_calls {
  public:
    class one {
      public:
        explicit one(open_calls & of) : of(of) {
            const std::lock_guard<std::mutex> held(of.mutex);
            of.n++;
        }
        ~one() {
            const std::lock_guard<std::mutex> held(of.mutex);
            if (--of.n == 0) {
                of.none.notify_all();
            }
        }
        one(const one &)             = delete;
        one & operator=(const one &) = delete;

      private:
        open_calls & of;
    };

    void wait() {
        std::unique_lock<std::mutex> held(mutex);
        none.wait(held, [this] { return n == 0; });
    }

  private:
    std::mutex              mutex;
    std::condition_variable none;
    size_t                  n = 0;
};

// What atlas_state() is for this thread, as long as this object lives.
using scope = atlas_state_scope;

bool is_ours(const std::string & path) { return path == "/v1/atlas" || path.compare(0, 10, "/v1/atlas/") == 0; }

std::string lower(std::string text) {
    std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return (char) std::tolower(c); });
    return text;
}

json parsed(const std::string & body) {
    json value = json::parse(body, nullptr, false);
    return value.is_discarded() ? json(body) : value;
}

} // namespace

struct AtlasServer::impl {
    explicit impl(const AtlasServerConfig & config) : config(config) {}

    const AtlasServerConfig config;

    // In this order: the engine's loop, and what it answers with, use the state until the end.
    std::unique_ptr<atlas_server_state> state = std::make_unique<atlas_server_state>();
    std::unique_ptr<engine>             running;
    open_calls                          calls;

    http_response answer(const AtlasRequest & from) {
        if (!is_ours(from.path)) {
            return running->handle({from.method, from.path, from.query, from.body, from.headers, from.is_gone});
        }
        if (!state->runtime) {
            return error_response(503, "ATLAS is off: config.enabled is false");
        }
        http_request request;
        request.method = from.method;
        request.path   = from.path;
        request.query  = from.query;
        request.body   = from.body;
        for (const auto & [name, value] : from.headers) {
            request.headers.emplace_back(lower(name), value);
        }
        return state->runtime->handle(request);
    }
};

AtlasServer::AtlasServer(AtlasServerConfig config) : self(std::make_unique<impl>(config)) {}

AtlasServer::~AtlasServer() {
    if (!self->running) {
        return;
    }
    const scope here(*self->state);
    self->state->ending.has_begun = true; // who waits for a result gets an error instead
    self->running->stop();
    const bool is_over = !self->state->runtime || self->state->runtime->stop();
    self->calls.wait();
    self->running.reset();
    if (!is_over) {
        (void) self->state.release(); // a call into Python has not come back, and may yet
    }
}

void AtlasServer::initialize(llama_model * model, const AtlasModelOptions & options) {
    if (self->running) {
        throw std::runtime_error("initialize() was called before");
    }
    auto &      state = *self->state;
    const scope here(state);
    state.settings.take(self->config);
    apply_logging(*state.settings.values());
    atlas_use_llama_log();
    tenant_options everybody;
    everybody.directory = saving_off(self->config).empty() ? self->config.memory_save_path : "";
    atlas_start_runtime(state, common_params(), everybody, true);

    auto arguments = options.arguments;
    if (std::find(arguments.begin(), arguments.end(), "-np") == arguments.end()) {
        const auto & config = self->config;
        const auto   pool =
            config.context_pool_size > 0 ? config.context_pool_size : config.max_concurrent_atlas_requests;
        arguments.insert(arguments.end(), {"-np", std::to_string(pool), "--kv-unified"});
    }
    self->running = std::make_unique<engine>(state, model, options.model_path, arguments);
}

AtlasResponse AtlasServer::handle(const AtlasRequest & request) {
    if (!self->running) {
        return {503, "application/json", error_body(503, "initialize() was not called, or failed"), {}, {}};
    }
    auto          call = std::make_shared<open_calls::one>(self->calls);
    const scope   here(*self->state);
    auto          from = self->answer(request);
    AtlasResponse answer;
    answer.status       = from.status;
    answer.content_type = std::move(from.content_type);
    answer.body         = std::move(from.body);
    answer.headers      = std::move(from.headers);
    if (from.next) {
        // the members in this order: the answer ends before the call does
        struct stream {
            std::shared_ptr<open_calls::one>   call;
            atlas_server_state &               state;
            std::function<bool(std::string &)> next;

            ~stream() {
                const scope here(state);
                next = nullptr;
            }
        };
        auto kept   = std::make_shared<stream>(stream{call, *self->state, std::move(from.next)});
        answer.next = [kept](std::string & piece) {
            const scope here(kept->state);
            return kept->next(piece);
        };
    }
    return answer;
}

static const char * completion_path(const json & request) {
    return request.is_object() && request.contains("messages") ? "/v1/chat/completions" : "/v1/completions";
}

json AtlasServer::handle_completion_request(const json & request) {
    if (request.is_object() && request.value("stream", false)) {
        return parsed(error_body(400, "\"stream\" is for handle_streaming_request()"));
    }
    AtlasRequest to;
    to.path = completion_path(request);
    to.body = request.dump();
    return parsed(handle(to).body);
}

// The events of a text/event-stream as far as they are complete; the rest stays in `text`.
static std::vector<std::string> take_events(std::string & text) {
    static const std::string END = "\n\n", DATA = "data: ";
    std::vector<std::string> events;
    size_t                   end;
    while ((end = text.find(END)) != std::string::npos) {
        const std::string event = text.substr(0, end);
        text.erase(0, end + END.size());
        if (event.compare(0, DATA.size(), DATA) == 0) {
            events.push_back(event.substr(DATA.size()));
        }
    }
    return events;
}

json AtlasServer::handle_streaming_request(const json & request, const std::function<bool(const json &)> & on_chunk) {
    json         asked = request;
    AtlasRequest to;
    asked["stream"] = true;
    to.path         = completion_path(asked);
    to.body         = asked.dump();
    auto answer     = handle(to);
    if (!answer.next) {
        return parsed(answer.body);
    }
    std::string text = std::move(answer.body);
    for (bool has_more = true; has_more;) {
        has_more = answer.next(text);
        for (const auto & event : take_events(text)) {
            if (event == "[DONE]") {
                return nullptr;
            }
            const json chunk = parsed(event);
            if (chunk.is_object() && chunk.contains("error")) {
                return chunk;
            }
            if (!on_chunk(chunk)) {
                return nullptr;
            }
        }
    }
    return nullptr;
}

static json get(AtlasServer & from, const char * path) {
    AtlasRequest to;
    to.method = "GET";
    to.path   = path;
    return parsed(from.handle(to).body);
}

static json post(AtlasServer & to, const std::string & path, const json & body) {
    AtlasRequest request;
    request.path = path;
    request.body = body.dump();
    return parsed(to.handle(request).body);
}

json AtlasServer::handle_metrics_request() { return get(*this, "/v1/atlas/metrics"); }

json AtlasServer::handle_status_request() { return get(*this, "/v1/atlas/status"); }

json AtlasServer::handle_config_request(const json & changes) {
    return changes.is_null() ? get(*this, "/v1/atlas/config") : post(*this, "/v1/atlas/config", changes);
}

json AtlasServer::handle_memory_request(const std::string & operation, const json & request) {
    return post(*this, "/v1/atlas/memory/" + operation, request);
}

static slot_pool * pool_of(const std::unique_ptr<runtime> & runtime) {
    return runtime ? &runtime->gate().pool() : nullptr;
}

void AtlasServer::resize_pool(int n_contexts) {
    const int n_max = self->running ? self->running->n_slots() : 0;
    if (n_contexts < 1 || n_contexts > n_max) {
        throw std::invalid_argument("a pool of " + std::to_string(n_contexts) + " contexts: it can have 1 to " +
                                    std::to_string(n_max));
    }
    if (auto * pool = pool_of(self->state->runtime)) {
        pool->set_pool_size(n_contexts);
    }
}

int AtlasServer::pool_size() const {
    const auto * pool = pool_of(self->state->runtime);
    return pool ? (int) pool->stats().pool_size : 0;
}

int AtlasServer::pool_in_use() const {
    const auto * pool = pool_of(self->state->runtime);
    return pool ? (int) pool->stats().slots_in_use : 0;
}

} // namespace atlas
