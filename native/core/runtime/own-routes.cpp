#include "atlas-own-routes.hpp"

#include "atlas-abi.h"
#include "atlas-log.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <exception>
#include <utility>

namespace atlas {

using json = nlohmann::json;

static http_response whole(http_response answer) {
    return answer.next ? error_response(400, "a plugin gets whole answers, and this is a stream") : answer;
}

static http_response not_in_time() { return error_response(503, "the server did not answer this in time"); }

void own_routes::open(route_call call) {
    const std::lock_guard<std::mutex> held(mutex);
    routes = std::move(call);
}

std::optional<http_response> own_routes::enter(clock::time_point deadline, int64_t max_at_once) {
    std::unique_lock<std::mutex> held(mutex);
    if (!changed.wait_until(held, deadline, [&] { return is_closed || !routes || n_inside < max_at_once; })) {
        return not_in_time();
    }
    if (is_closed) {
        return error_response(503, "the server is shutting down");
    }
    if (!routes) {
        return error_response(503, "the model is not loaded yet");
    }
    n_inside++;
    return std::nullopt;
}

void own_routes::leave() {
    const std::lock_guard<std::mutex> held(mutex);
    n_inside--;
    changed.notify_all();
}

http_response own_routes::call(const http_request & request, clock::time_point deadline, int64_t max_at_once) {
    if (auto refusal = enter(deadline, max_at_once)) {
        return std::move(*refusal);
    }
    struct visit {
        own_routes & of;
        ~visit() { of.leave(); }
    } const inside{*this}; // also where there is no memory left for an answer
    http_response answer;
    const auto    is_late = [deadline] { return clock::now() >= deadline; };
    try {
        answer = routes(request, is_late); // not changed before close() has seen this leave
    } catch (const std::exception & e) {
        log(LogLevel::ERROR, "a plugin's request to " + request.path + " failed: " + e.what());
        answer = error_response(500, "Internal server error");
    }
    answer = whole(std::move(answer)); // a stream goes before the call has left
    if (answer.body.empty() && is_late()) { // who no longer waits gets nothing from upstream's handlers
        answer = not_in_time();
    }
    return answer;
}

void own_routes::close() {
    std::unique_lock<std::mutex> held(mutex);
    is_closed = true;
    changed.notify_all();
    changed.wait(held, [this] { return n_inside == 0; });
}

std::optional<asked_route> parse_asked_route(std::string_view argument) {
    try {
        const json  document = json::parse(argument);
        asked_route asked;
        auto &      request = asked.request;
        request.method      = document.at("method").get<std::string>();
        request.path        = document.at("path").get<std::string>();
        request.body        = document.at("body").get<std::string>();
        request.tenant      = document.at("tenant").get<std::string>();
        request.is_admin    = document.at("is_admin").get<bool>();
        request.headers     = {{"content-type", "application/json"}};
        const size_t query  = std::min(request.path.find('?'), request.path.size());
        request.query       = request.path.substr(std::min(query + 1, request.path.size()));
        request.path.resize(query);
        const auto patience_ms = document.at("timeout_ms").get<int64_t>();
        if (patience_ms < 1 || patience_ms > ATLAS_MAX_ASK_MS) {
            return std::nullopt;
        }
        asked.patience = std::chrono::milliseconds(patience_ms);
        return asked;
    } catch (const json::exception &) {
        return std::nullopt;
    }
}

std::string asked_answer_json(http_response from) {
    const auto answer = whole(std::move(from));
    return json{{"status", answer.status}, {"body", answer.body}}.dump(-1, ' ', false, json::error_handler_t::replace);
}

} // namespace atlas
