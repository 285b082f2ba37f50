#include "atlas-inside.h"

#include "atlas-authenticate.h"
#include "atlas-error.hpp"
#include "atlas-server-state.h"
#include "server-common.h"
#include "server-context.h"
#include "server-http.h"

#include <atomic>
#include <memory>
#include <stdexcept>
#include <utility>

namespace {

// What upstream's HTTP server makes of a handler that throws.
std::unique_ptr<server_http_res> call(const atlas_handler & handler, const server_http_req & request) {
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

atlas::http_response reply_of(std::shared_ptr<server_http_res> from) {
    atlas::http_response reply;
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

// As long as it lives, this thread's requests are a plugin's. The thread may be serving a client's, too.
class plugin_scope {
  public:
    explicit plugin_scope(const atlas::http_request & request)
        : before(std::exchange(atlas_named_sender(), identity_of(request))) {}
    plugin_scope(const plugin_scope &)             = delete;
    plugin_scope & operator=(const plugin_scope &) = delete;
    ~plugin_scope() { atlas_named_sender() = before; }

  private:
    const std::optional<atlas::identity> before;

    static atlas::identity identity_of(const atlas::http_request & request) {
        atlas::identity who;
        who.tenant    = request.tenant;
        who.is_admin  = request.is_admin;
        who.is_plugin = true;
        return who;
    }
};

} // namespace

atlas_route_table atlas_routes_of(const server_routes & routes) {
    return {
#define ATLAS_GET(path, handler)  {"GET " path, &routes.handler},
#define ATLAS_POST(path, handler) {"POST " path, &routes.handler},
#include "atlas-routes.def"
#undef ATLAS_GET
#undef ATLAS_POST
    };
}

atlas::http_response atlas_call_inside(const atlas_route_table & routes, const atlas::http_request & request,
                                       const std::map<std::string, std::string> & parameters,
                                       std::function<bool()> is_gone, std::shared_ptr<atlas::request> begun) {
    const auto found = routes.find(request.method + " " + request.path);
    if (found == routes.end()) {
        return atlas::error_response(404, "there is no " + request.method + " " + request.path);
    }
    // the request has to live as long as its streamed answer, which asks it whether somebody still reads
    struct exchange {
        std::function<bool()>            is_gone;
        std::unique_ptr<server_http_req> request;
        std::unique_ptr<server_http_res> response;
    };
    auto kept     = std::make_shared<exchange>();
    kept->is_gone = asked_until_gone(std::move(is_gone));
    kept->request.reset(new server_http_req{
        parameters, {}, atlas_state().route_prefix + request.path, request.query, request.body, {}, kept->is_gone});
    for (const auto & [name, value] : request.headers) {
        kept->request->headers[name] = value;
    }
    kept->request->atlas = std::move(begun);
    kept->response       = call(*found->second, *kept->request);
    return reply_of({kept, kept->response.get()});
}

atlas::route_call atlas_calls_of_plugins(atlas_server_state & state, atlas_route_table routes) {
    return [&state, routes = std::move(routes)](const atlas::http_request &   request,
                                                const std::function<bool()> & is_gone) {
        const atlas_state_scope here(state);
        const plugin_scope      plugins(request);
        return atlas_call_inside(routes, request, {}, is_gone);
    };
}
