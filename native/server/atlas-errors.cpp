// What becomes of a request whose handler throws. Compiled into server-context, which the CLI uses too.
#include "atlas-error.hpp"
#include "atlas-hooks.h"
#include "atlas-llama-server.h"
#include "atlas-request.hpp"
#include "atlas-runtime.hpp"
#include "atlas-server-state.h"
#include "atlas-strict-schemas.h"
#include "server-common.h"
#include "server-http.h"

#include <string>
#include <system_error>
#include <utility>

// In upstream's format. Without ATLAS, upstream's answer.
static std::unique_ptr<server_http_res> invalid_request(const char * problem, const std::exception & error) {
    const bool is_ours = atlas_active() != nullptr;
    const json data = is_ours ? format_error_response(std::string(problem) + error.what(), ERROR_TYPE_INVALID_REQUEST)
                              : format_error_response(error.what(), ERROR_TYPE_SERVER);

    auto res    = std::make_unique<server_http_res>();
    res->status = json_value(data, "code", 500);
    res->data   = safe_json_to_str({{"error", data}});
    return res;
}

static bool ends_with(const std::string & text, const std::string & end) {
    return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// Whether what went wrong with a request went wrong where its body was read: nothing has been computed yet.
static bool is_of_body(const server_http_req & req) {
    if (req.atlas) {
        return !req.atlas->is_admitted;
    }
    return atlas_active() && (ends_with(req.path, "/count_tokens") || ends_with(req.path, "/input_tokens") ||
                              ends_with(req.path, "/apply-template"));
}

static std::unique_ptr<server_http_res> answer_of(const atlas_handler & handler, const server_http_req & req) {
    try {
        return handler(req);
    } catch (const atlas::error & error) {
        atlas_is_error_of_handler() = true; // upstream would say of each 404 that there is no such route
        // what is said of the `atlas` object is the same on all routes
        const bool is_openais =
            atlas::route_of(req.path) == atlas::request_route::responses && error.param.compare(0, 5, "atlas") != 0;
        return atlas_server_response(atlas::error_response(error, is_openais));
    } catch (atlas_answered & by_plugin) {
        return atlas_server_response(std::move(by_plugin.answer));
    } catch (const common_json_error & error) {
        return invalid_request("The body is no JSON, or not of the kind that this route takes: ", error);
    } catch (const std::system_error &) {
        throw; // the machine's
    } catch (const std::runtime_error & error) {
        // upstream answers 500 where a body is not what the route takes, or has an image for a model without eyes
        if (!is_of_body(req)) {
            throw;
        }
        return invalid_request("", error);
    } catch (const std::out_of_range & error) {
        return invalid_request("The request names a token or an entry that does not exist: ", error);
    } catch (const std::invalid_argument & error) {
        if (!atlas_wants_error(req)) {
            throw;
        }
        return invalid_request("", error);
    }
}

std::unique_ptr<server_http_res> atlas_call(const atlas_handler & handler, const server_http_req & req) {
    auto response = answer_of(handler, req);
    atlas_complete_error(req, *response);
    return response;
}
