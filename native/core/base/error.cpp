#include "atlas-error.hpp"

#include "atlas-facts.h"
#include "atlas-http.hpp"

#include <nlohmann/json.hpp>

#include <ctime>

namespace atlas {

error validation_error(const std::string & field, const std::string & problem) {
    error refused(400, "Validation error in field '" + field + "': " + problem);
    refused.param = field;
    return refused;
}

const char * error_type(int code) {
#define ATLAS_ERROR_TYPE(status, type)                                                                                 \
    case status: return type;
    switch (code) {
        ATLAS_ERROR_TYPES(ATLAS_ERROR_TYPE)
        default: return error_type(code >= 400 && code < 500 ? 400 : 500);
    }
#undef ATLAS_ERROR_TYPE
}

std::string error_body(int code, const std::string & message, const std::string & param) {
    nlohmann::ordered_json body = {{"error",
                                    {
                                        {"code", code},
                                        {"message", message},
                                        {"type", error_type(code)},
                                        {"timestamp", (int64_t) std::time(nullptr)},
                                    }}};
    if (!param.empty()) {
        body["error"]["param"] = param;
    }
    return body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

http_response error_response(int status, const std::string & message) {
    http_response response;
    response.status = status;
    response.body   = error_body(status, message);
    return response;
}

http_response error_response(const error & error, bool names_param) {
    http_response response;
    response.status  = error.code;
    response.body    = error_body(error.code, error.what(), names_param ? error.param : "");
    response.headers = error.headers;
    if (error.retry_after_s > 0) {
        response.headers.emplace_back("Retry-After", std::to_string(error.retry_after_s));
    }
    return response;
}

} // namespace atlas
