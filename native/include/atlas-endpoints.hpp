/// @file
/// The routes of ATLAS for a cpp-httplib server of yours. They are answered by the server that init_atlas() makes.
///
///     httplib::Server server;
///     ATLAS_ADD_ENDPOINTS(server);              // all below /v1/atlas
///     ATLAS_ADD_COMPLETION_ENDPOINTS(server);   // /v1/chat/completions and the rest of llama-server's, too
///
/// This header includes no cpp-httplib: it takes any server that has its interface. Whoever may call a route, your program
/// decides: with set_pre_routing_handler(), for example.
#pragma once

#include "atlas-integration.hpp"

#include <memory>
#include <string>
#include <utility>

/// See atlas::add_endpoints().
#define ATLAS_ADD_ENDPOINTS(server) ::atlas::add_endpoints(server)

/// See atlas::add_completion_endpoints().
#define ATLAS_ADD_COMPLETION_ENDPOINTS(server) ::atlas::add_completion_endpoints(server)

namespace atlas {

/// Answers one request of cpp-httplib's by the route that its path names. Blocks until the answer is there, or where it is
/// streamed, until it begins; the rest is computed while cpp-httplib sends it. Any thread, which is how cpp-httplib calls it.
/// Throws std::runtime_error before init_atlas(), which cpp-httplib answers with 500.
template <typename Request, typename Response> void answer(const Request & from, Response & to) {
    AtlasRequest request;
    request.method = from.method == "HEAD" ? "GET" : from.method; // cpp-httplib leaves the body out
    request.path   = from.path;
    request.body   = from.body;

    const auto mark = from.target.find('?');
    request.query   = mark == std::string::npos ? "" : from.target.substr(mark + 1);
    for (const auto & [name, value] : from.headers) {
        request.headers.emplace_back(name, value);
    }
    request.is_gone = from.is_connection_closed;

    AtlasResponse answer = atlas_instance().handle(request);
    to.status            = answer.status;
    for (const auto & [name, value] : answer.headers) {
        to.set_header(name, value);
    }
    if (!answer.next) {
        to.set_content(answer.body, answer.content_type);
        return;
    }
    to.set_header("X-Accel-Buffering", "no"); // nginx hands each piece on at once
    auto kept = std::make_shared<AtlasResponse>(std::move(answer));
    to.set_chunked_content_provider(kept->content_type, [kept](size_t, auto & sink) {
        std::string piece    = std::exchange(kept->body, "");
        const bool  has_more = kept->next(piece);
        if (!piece.empty() && !sink.write(piece.data(), piece.size())) {
            return false;
        }
        if (!has_more) {
            sink.done();
        }
        return true;
    });
}

/// answer(), as a handler that may be registered under any path.
inline constexpr auto endpoint = [](const auto & request, auto & response) { answer(request, response); };

/// Registers all routes below /v1/atlas. The server is borrowed for the call. Before it listens, by one thread. Throws what its
/// Get() throws.
template <typename Server> void add_endpoints(Server & server) {
    server.Get("/v1/atlas/.*", endpoint);
    server.Post("/v1/atlas/.*", endpoint);
    server.Delete("/v1/atlas/.*", endpoint);
}

/// Registers the routes of llama-server's, which atlas-routes.def lists; otherwise the same.
template <typename Server> void add_completion_endpoints(Server & server) {
#define ATLAS_GET(path, ...)  server.Get(path, endpoint);
#define ATLAS_POST(path, ...) server.Post(path, endpoint);
#include "atlas-routes.def"
#undef ATLAS_GET
#undef ATLAS_POST
}

} // namespace atlas

/// @name Single routes
/// @{

/// To be registered by hand: server.Post("/v1/atlas/config", handle_atlas_config). See atlas::answer().
inline constexpr auto handle_atlas_status         = atlas::endpoint;
inline constexpr auto handle_atlas_config         = atlas::endpoint;
inline constexpr auto handle_atlas_metrics        = atlas::endpoint;
inline constexpr auto handle_atlas_metrics_stream = atlas::endpoint;
inline constexpr auto handle_atlas_memory_save    = atlas::endpoint;
inline constexpr auto handle_atlas_memory_load    = atlas::endpoint;
inline constexpr auto handle_atlas_memory_list    = atlas::endpoint;
inline constexpr auto handle_atlas_memory_delete  = atlas::endpoint;
inline constexpr auto handle_atlas_completion     = atlas::endpoint;
/// @}
