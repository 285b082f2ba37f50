#include "atlas-runtime.hpp"

#include "atlas-error.hpp"
#include "atlas-log.hpp"

#include <nlohmann/json.hpp>

#include <utility>

namespace atlas {

using json = nlohmann::ordered_json;

runtime::runtime(settings settings, std::string server_version, python_options options)
    : all_settings(std::move(settings)), server_version(std::move(server_version)), python_where(std::move(options)),
      embedded([this](int32_t what) { return query(what); }) {}

bool runtime::start() {
    const auto & config = all_settings.values();
    const auto   where  = find_python_environment(config.python_home, python_where.environment);

    python_where.environment = where.path;
    python_problem           = embedded.start(python_where);
    if (python_problem.empty()) {
        return true;
    }
    python_problem += "; the environment was given by " + where.decided_by;
    logf(LogLevel::ERROR, "Python could not start: %s", python_problem.c_str());
    if (config.require_python) {
        log(LogLevel::ERROR, "--atlas-require-python is given: not starting the server");
        return false;
    }
    log(LogLevel::WARN, "going on without Python: no plugins, no saved contexts; /v1/atlas/status says so");
    return true;
}

void runtime::set_model(const model_info & new_model) {
    const std::lock_guard<std::mutex> lock(model_mutex);
    model        = new_model;
    model_loaded = true;
    logf(LogLevel::INFO, "Context pool initialized with %d contexts", model.context_pool_size);
}

std::unique_ptr<request> runtime::begin_request(const std::string & text, request::clock::time_point began) {
    request_options options  = parse_request_options(text);
    const bool      degraded = options.session_id && !embedded.running();
    return std::make_unique<request>(std::move(options), began,
                                     degraded ? "sessions are not stored: Python is not running" : "");
}

http_response runtime::handle(const http_request & request) {
    if (python_problem.empty()) {
        return embedded.handle(request);
    }
    if (request.path != "/v1/atlas/status" || request.method != "GET") {
        return error_response(503, "Python is not running: " + python_problem);
    }
    json data                  = json::parse(status_json());
    data["memory_persistence"] = false;

    http_response response;
    response.body = json{{"status", "degraded"},
                         {"data", data},
                         {"problems", json::array({"Python is not running: " + python_problem})}}
                        .dump(-1, ' ', false, json::error_handler_t::replace);
    return response;
}

bool runtime::stop() { return embedded.stop(all_settings.values().shutdown_timeout_s); }

std::string runtime::query(int32_t what) {
    switch (what) {
        case ATLAS_QUERY_STATUS:   return status_json();
        case ATLAS_QUERY_SETTINGS: return all_settings.to_json();
        default:                   return "";
    }
}

std::string runtime::status_json() {
    const std::chrono::duration<double> uptime = std::chrono::steady_clock::now() - started;
    const std::lock_guard<std::mutex>   lock(model_mutex);
    return json{
        {"initialized", model_loaded},
        {"context_pool_size", model.context_pool_size},
        {"metrics_enabled", false},
        {"uptime_seconds", uptime.count()},
        {"model", model_loaded ? json(model.name) : json()},
        {"server_version", server_version},
    }
        .dump(-1, ' ', false, json::error_handler_t::replace);
}

} // namespace atlas
