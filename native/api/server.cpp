#include "atlas-server.hpp"

#include "arguments.hpp"
#include "atlas-error.hpp"
#include "atlas-in-effect.hpp"
#include "atlas-limits.hpp"
#include "atlas-llama-server.h"
#include "atlas-log.hpp"
#include "atlas-request-admission.hpp"
#include "atlas-runtime.hpp"
#include "atlas-server-state.h"
#include "atlas-settings.hpp"
#include "atlas-slots.h"
#include "common.h"
#include "engine.hpp"
#include "open-calls.hpp"
#include "upstream-log.hpp"

#include <algorithm>
#include <optional>
#include <string_view>

namespace atlas {

namespace {

// What atlas_state() is for this thread, as long as this object lives.
using scope = atlas_state_scope;

std::string lower(std::string text) {
    std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return (char) std::tolower(c); });
    return text;
}

json parsed(const std::string & body) {
    json value = json::parse(body, nullptr, false);
    return value.is_discarded() ? json(body) : value;
}

// As is_json_deeper_than(), of what is no text yet. Does not recurse.
bool is_deeper_than(const json & value, int limit) {
    std::vector<std::pair<const json *, int>> left = {{&value, 1}};
    while (!left.empty()) {
        const auto [at, depth] = left.back();
        left.pop_back();
        if (!at->is_structured()) {
            continue;
        }
        if (depth > limit) {
            return true;
        }
        for (const auto & each : *at) {
            left.emplace_back(&each, depth + 1);
        }
    }
    return false;
}

// Nothing where a string in it is not UTF-8.
std::optional<std::string> dump(const json & value) {
    try {
        return value.dump();
    } catch (const json::exception &) {
        return std::nullopt;
    }
}

// What an HTTP server would have been sent. Throws atlas::error, which names the field.
std::string text_of(const json & request) {
    if (!request.is_object()) {
        throw validation_error("body", "must be a JSON object");
    }
    for (const auto & [name, value] : request.items()) {
        if (is_deeper_than(value, MAX_JSON_DEPTH - 1)) {
            throw validation_error(name, "is nested deeper than " + std::to_string(MAX_JSON_DEPTH) + " levels");
        }
    }
    if (auto text = dump(request)) {
        return *text;
    }
    for (const auto & [name, value] : request.items()) {
        if (!dump(value)) {
            throw validation_error(name, "has text that is not UTF-8");
        }
    }
    throw validation_error("body", "has a name that is not UTF-8");
}

} // namespace

struct AtlasServer::impl {
    explicit impl(const AtlasServerConfig & config) : config(config) {}

    const AtlasServerConfig config;

    // In this order: the engine's loop, and what it answers with, use the state until the end.
    std::unique_ptr<atlas_server_state> state = std::make_unique<atlas_server_state>();
    std::unique_ptr<engine>             running;
    open_calls                          calls;
    open_streams                        streams;

    void start(llama_model * model, const AtlasModelOptions & options) {
        const scope here(*state);
        state->settings.take(config);
        apply_logging(*state->settings.values());
        atlas_use_llama_log();
        take_upstream_log();
        tenant_options everybody;
        everybody.directory = saving_off(config).empty() ? config.memory_save_path : "";
        auto how            = engine_options_of(model, config, options);
        if (!atlas_start_runtime(*state, how.params, everybody, true, options.memory_policy)) {
            throw std::runtime_error("Python is required and did not start; the log says why");
        }
        running = std::make_unique<engine>(*state, std::move(how.params), how.n_pool);
    }

    void end() {
        const scope here(*state);
        state->ending.has_begun = true; // who waits for a result gets an error instead
        if (running) {
            running->stop();
        }
        const bool is_over = !state->runtime || state->runtime->stop();
        if (running) {
            streams.end();
            calls.wait();
            running.reset();
        }
        if (!is_over) {
            (void) state.release(); // a call into Python has not come back, and may yet
        }
    }

    http_response answer(const AtlasRequest & from) {
        http_request request;
        request.method = from.method;
        request.path   = from.path;
        request.query  = from.query;
        request.body   = from.body;
        if (!is_for_atlas(from.method, from.path)) {
            request.headers = from.headers;
            return running->handle(request, from.is_gone);
        }
        if (!state->runtime) {
            return error_response(503, "ATLAS is off: config.enabled is false");
        }
        for (const auto & [name, value] : from.headers) {
            request.headers.emplace_back(lower(name), value);
        }
        return state->runtime->handle(request);
    }
};

AtlasServer::AtlasServer(AtlasServerConfig config) : self(std::make_unique<impl>(config)) {}

AtlasServer::~AtlasServer() {
    if (self->running) {
        self->end();
    }
}

void AtlasServer::initialize(llama_model * model, const AtlasModelOptions & options) {
    if (self->running) {
        throw std::runtime_error("initialize() was called before");
    }
    if (model == nullptr) {
        throw std::invalid_argument("model: it is null");
    }
    try {
        self->start(model, options);
    } catch (...) {
        self->end();
        self->state =
            std::make_unique<atlas_server_state>(); // of the old one nothing is left, so that it can be tried again
        throw;
    }
}

AtlasResponse AtlasServer::handle(const AtlasRequest & request) {
    if (!self->running) {
        return {503, "application/json", error_body(503, "initialize() was not called, or failed"), {}, {}};
    }
    const open_calls::one call(self->calls);
    const scope           here(*self->state);
    auto                  from = self->answer(request);
    AtlasResponse         answer;
    answer.status       = from.status;
    answer.content_type = std::move(from.content_type);
    answer.body         = std::move(from.body);
    answer.headers      = std::move(from.headers);
    if (from.next) {
        auto kept = std::make_shared<open_stream>(self->calls, *self->state, std::move(from.next));
        self->streams.add(kept);
        answer.next = [kept](std::string & piece) { return kept->read(piece); };
    }
    return answer;
}

// The completion that the request asks for. Throws atlas::error.
static AtlasRequest completion_of(const json & request, bool is_streamed) {
    AtlasRequest to;
    to.body = text_of(request); // before anything that recurses
    to.path = request.contains("messages") ? "/v1/chat/completions" : "/v1/completions";
    if (is_streamed) {
        json asked      = request;
        asked["stream"] = true;
        to.body         = asked.dump();
    } else if (request.value("stream", json()) == true) {
        throw validation_error("stream", "is for handle_streaming_request()");
    }
    return to;
}

json AtlasServer::handle_completion_request(const json & request) {
    try {
        return parsed(handle(completion_of(request, false)).body);
    } catch (const error & problem) {
        return parsed(error_body(problem.code, problem.what()));
    }
}

// The events of a text/event-stream as far as they are complete; the rest stays in `text`.
static std::vector<std::string> take_events(std::string & text) {
    constexpr std::string_view END = "\n\n", DATA = "data: ";
    std::vector<std::string>   events;
    size_t                     end;
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
    const open_calls::one call(self->calls); // on_chunk is inside, too, and may call this server
    AtlasResponse         answer;
    try {
        answer = handle(completion_of(request, true));
    } catch (const error & problem) {
        return parsed(error_body(problem.code, problem.what()));
    }
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

// name: of the field that the body goes into; empty: it is all.
static json post(AtlasServer & to, const std::string & path, const json & body, const std::string & name = "") {
    try {
        AtlasRequest request;
        request.path = path;
        request.body = text_of(body);
        if (!name.empty()) {
            request.body = "{\"" + name + "\":" + request.body + "}";
        }
        return parsed(to.handle(request).body);
    } catch (const error & problem) {
        return parsed(error_body(problem.code, problem.what()));
    }
}

json AtlasServer::handle_metrics_request() { return get(*this, "/v1/atlas/metrics"); }

json AtlasServer::handle_status_request() { return get(*this, "/v1/atlas/status"); }

json AtlasServer::handle_config_request(const json & changes) {
    return changes.is_null() ? get(*this, "/v1/atlas/config") : post(*this, "/v1/atlas/config", changes, "settings");
}

json AtlasServer::handle_memory_request(const std::string & operation, const json & request) {
    return post(*this, "/v1/atlas/memory/" + operation, request);
}

static slot_pool * pool_of(const std::unique_ptr<runtime> & runtime) {
    return runtime ? &runtime->gate().pool() : nullptr;
}

void AtlasServer::resize_pool(int n_slots) {
    const int n_max = self->running ? self->running->n_slots() : 0;
    if (n_slots < 1 || n_slots > n_max) {
        throw std::invalid_argument("a pool of " + std::to_string(n_slots) + " contexts: it can have 1 to " +
                                    std::to_string(n_max));
    }
    if (auto * pool = pool_of(self->state->runtime)) {
        pool->set_pool_size(n_slots);
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
