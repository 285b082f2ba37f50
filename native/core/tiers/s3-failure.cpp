#include "s3-failure.hpp"

#include "resp-failure.hpp"

namespace atlas::s3 {

namespace {

// What an XML element of that name has; errors are flat, and have each once.
std::string_view element_of(std::string_view body, const std::string & name) {
    const size_t begin = body.find("<" + name + ">");
    const size_t end   = body.find("</" + name + ">");
    if (begin == std::string_view::npos || end == std::string_view::npos || end < begin) {
        return "";
    }
    const size_t at = begin + name.size() + 2;
    return body.substr(at, end - at);
}

struct meaning {
    std::string_view code;
    tier_failure     failure;
    const char *     advice;
};

constexpr meaning MEANINGS[] = {
    {"NoSuchBucket", tier_failure::denied, "make the bucket, or correct its name"},
    {"SignatureDoesNotMatch", tier_failure::denied, "the secret key is wrong"},
    {"InvalidAccessKeyId", tier_failure::denied, "there is no such key"},
    {"ExpiredToken", tier_failure::denied, "the session's keys are no longer valid"},
    {"RequestTimeTooSkewed", tier_failure::denied, "set this machine's clock"},
    {"AuthorizationHeaderMalformed", tier_failure::broken, "name the bucket's region by ?region="},
    {"PermanentRedirect", tier_failure::broken, "name the bucket's region by ?region="},
    {"QuotaExceeded", tier_failure::full, "it is full"},
    {"XMinioStorageFull", tier_failure::full, "it is full"},
    {"EntityTooLarge", tier_failure::full, "it takes no values as large"},
};

} // namespace

bool is_missing(long status, std::string_view body) {
    return status == 404 && element_of(body, "Code") != "NoSuchBucket";
}

void throw_failure(const std::string & address, long status, std::string_view body) {
    const std::string_view code = element_of(body, "Code");
    std::string            text = address + ": HTTP status " + std::to_string(status);
    if (!code.empty()) {
        text += ", " + resp::for_log(code, "") + ": " + resp::for_log(element_of(body, "Message"), "");
    }
    for (const auto & known : MEANINGS) {
        if (code == known.code) {
            throw tier_error(known.failure, text + " (" + known.advice + ")");
        }
    }
    if (status == 401 || status == 403) {
        throw tier_error(tier_failure::denied,
                         text + " (grant s3:GetObject, s3:PutObject, s3:DeleteObject, and s3:ListBucket, "
                                "without which nobody learns that something is not there)");
    }
    if (status == 507) {
        throw tier_error(tier_failure::full, text + " (it is full)");
    }
    throw tier_error(status == 429 || status >= 500 ? tier_failure::unreachable : tier_failure::broken, text);
}

} // namespace atlas::s3
