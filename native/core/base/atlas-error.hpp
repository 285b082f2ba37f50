// The one error format of ATLAS: {"error": {"code", "message", "type", "timestamp"}}, and "param" where clients of OpenAI's
// API look for it. Touches nothing but the clock; any thread.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace atlas {

// An error that the client sees. Thrown on HTTP threads, before a task is posted.
struct error : std::runtime_error {
    using http_headers = std::vector<std::pair<std::string, std::string>>;

    // code is the HTTP status: 400, 401, 403, 404, 413, 429, 500 or 503; of a plugin's refusal any from 400 to 599
    error(int code, const std::string & message, int retry_after_s = 0, http_headers headers = {})
        : std::runtime_error(message), code(code), retry_after_s(retry_after_s), headers(std::move(headers)) {}

    int code;
    int retry_after_s; // seconds after which trying again may help, as the client is told; 0: it is told nothing
    http_headers headers; // further ones of the answer
    std::string  param; // the part of the request that is wrong, as "atlas.memory_layers"; empty: none alone
};

// 400 in the form "Validation error in field 'atlas.memory_layers': value must be between 1 and 10".
error validation_error(const std::string & field, const std::string & problem);

// "validation_error", "not_found", … for an HTTP status; "server_error" where none fits.
const char * error_type(int code);

// The JSON text of an error answer, with the present time as its timestamp (Unix seconds).
std::string error_body(int code, const std::string & message, const std::string & param = "");

} // namespace atlas
