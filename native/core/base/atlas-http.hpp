// HTTP requests and answers as ATLAS sees them, whatever server they came through. HTTP threads make and use them.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace atlas {

struct error;

struct http_request {
    std::string                                      method; // GET, POST or DELETE
    std::string                                      path;   // decoded, without a server-wide prefix
    std::string                                      query;  // what stood behind the '?', still encoded
    std::string                                      body;
    std::vector<std::pair<std::string, std::string>> headers; // names in lower case
    // Whose it is, by the API key that it came with (atlas-tenant.hpp).
    std::string tenant;
    std::string account;
    bool        is_admin = true;
};

struct http_response {
    int                                              status       = 200;
    std::string                                      content_type = "application/json; charset=utf-8";
    std::string                                      body;
    std::vector<std::pair<std::string, std::string>> headers; // without Content-Type

    // Set for a streamed body: appends the next piece (which may be empty) and returns whether more follows.
    // Called by one thread at a time. Destroying the last copy gives the stream back.
    std::function<bool(std::string & piece)> next;
};

// Whether a path, without a server-wide prefix, is below another.
inline bool is_below(const std::string & path, const std::string & root) {
    return path.size() > root.size() + 1 && path.compare(0, root.size(), root) == 0 && path[root.size()] == '/';
}

// Whether it is that of a response that is kept, or of what belongs to one.
inline bool is_response_path(const std::string & path) {
    return is_below(path, "/v1/responses") && path != "/v1/responses/input_tokens";
}

// Whether it is that of conversations, or of what belongs to one.
inline bool is_conversation_path(const std::string & path) {
    return path == "/v1/conversations" || is_below(path, "/v1/conversations");
}

// Whether it is that of a chat completion that is kept, or of what belongs to one.
inline bool is_completion_path(const std::string & path) {
    return is_below(path, "/v1/chat/completions") && path != "/v1/chat/completions/input_tokens" &&
           path != "/v1/chat/completions/control";
}

// Whether it is ATLAS's own: /v1/atlas or below, or of what clients may come back to.
inline bool is_atlas_path(const std::string & path) {
    return path == "/v1/atlas" || path == "/v1/atlas/" || is_below(path, "/v1/atlas") || is_response_path(path) ||
           is_conversation_path(path) || is_completion_path(path);
}

// Whether ATLAS answers a request: to a path of its own, or for the list of chat completions that are kept.
inline bool is_for_atlas(const std::string & method, const std::string & path) {
    return is_atlas_path(path) || (method == "GET" && path == "/v1/chat/completions");
}

// An error answer in the one error format (atlas-error.hpp).
http_response error_response(int status, const std::string & message);

// The same, with Retry-After where the error has it; names_param: and with the part of the request that is wrong.
http_response error_response(const error & error, bool names_param = false);

} // namespace atlas
