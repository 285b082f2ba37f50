#include "atlas-http-guard.h"

#include "atlas-authenticate.h"
#include "atlas-error.hpp"
#include "atlas-in-effect.hpp"
#include "atlas-llama-server.h"
#include "atlas-log.hpp"
#include "atlas-page-guard.hpp"
#include "atlas-server-state.h"
#include "atlas-settings.hpp"
#include "common.h"

#include <cpp-httplib/httplib.h>
#include <netdb.h>
#include <netinet/in.h>
#include <strings.h>

#include <memory>
#include <stdexcept>

namespace {

bool is_loopback(const sockaddr * address) {
    if (address->sa_family == AF_INET) {
        return ntohl(reinterpret_cast<const sockaddr_in *>(address)->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
    }
    return address->sa_family == AF_INET6 &&
           IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6 *>(address)->sin6_addr);
}

bool resolves_to_loopback(const std::string & host) {
    addrinfo * found = nullptr;
    if (getaddrinfo(host.c_str(), nullptr, nullptr, &found) != 0) {
        return false;
    }
    bool is_all = true;
    for (const addrinfo * each = found; each; each = each->ai_next) {
        is_all = is_all && is_loopback(each->ai_addr);
    }
    freeaddrinfo(found);
    return is_all;
}

// Whether browsers reach the server by loopback addresses alone. They do not reach Unix sockets at all.
bool is_on_loopback(const std::vector<std::string> & hosts) {
    bool has_address = false;
    for (const auto & host : hosts) {
        const bool is_socket = string_ends_with(host, ".sock");
        if (!is_socket && !resolves_to_loopback(host)) {
            return false;
        }
        has_address = has_address || !is_socket;
    }
    return has_address;
}

std::vector<std::string> split_list(const std::string & text) {
    std::vector<std::string> parts;
    for (const auto & part : string_split<std::string>(text, ',')) {
        parts.push_back(string_strip(part));
    }
    return parts;
}

void check_name(const std::string & name) {
    static const char * const ALLOWED = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.";
    if (name != "*" && name.find_first_not_of(ALLOWED) != std::string::npos) {
        throw std::invalid_argument("--atlas-allowed-hosts: '" + name +
                                    "' is not the name of a host: give names as llm.example, without scheme, port "
                                    "and path, or * for all");
    }
}

} // namespace

void atlas_http_guard::settle(common_params & params, const atlas::AtlasServerConfig & config, bool routes_models) {
    atlas::page_policy policy;
    // a preset may give one of the router's models a memory path of its own
    policy.guards_all = atlas::saving_off(config).empty() || (routes_models && !params.models_preset.empty());
    if (policy.guards_all && !params.cors_origins_explicit) {
        params.cors_origins = "localhost";
    }
    policy.origins = params.cors_origins_explicit ? split_list(params.cors_origins) : split_list("localhost");
    // elsewhere nobody but the user knows what names there are
    policy.checks_host = !config.allowed_hosts.empty() || (params.api_keys.empty() && is_on_loopback(params.hostnames));
    policy.hosts       = config.allowed_hosts;
    for (const auto & name : policy.hosts) {
        check_name(name);
    }
    policy.hosts.insert(policy.hosts.end(), params.hostnames.begin(), params.hostnames.end());

    is_router = routes_models;
    pages     = std::make_shared<const atlas::page_guard>(std::move(policy));
}

bool atlas_http_guard::refuses(const httplib::Request & request, httplib::Response & response) {
    if (!pages) {
        return false;
    }
    const auto        header = [&](const char * name) { return request.get_header_value(name); };
    const std::string why    = pages->refusal(request.method, atlas_owns_path(request.path), header);
    if (why.empty()) {
        return false;
    }
    if (!is_told.exchange(true)) { // pages can send as many as they like
        atlas::logf(atlas::LogLevel::WARN, "answered 403, and will not log the next: %s", why.c_str());
    }
    response.status = 403;
    response.set_content(atlas::error_body(403, why), "application/json; charset=utf-8");
    return true;
}

bool atlas_http_guard::keeps_header(const httplib::Request & request, const std::string & name,
                                    const std::string & value) const {
    const bool says_where_from =
        strcasecmp(name.c_str(), "Origin") == 0 || strcasecmp(name.c_str(), "Sec-Fetch-Site") == 0;
    return !(is_router && says_where_from) && request.get_header_value(name) == value;
}

bool atlas_refuse_page(const httplib::Request & request, httplib::Response & response) {
    atlas_meet(request);
    return atlas_state().guard.refuses(request, response);
}

bool atlas_keeps_header(const httplib::Request & request, const std::string & name, const std::string & value) {
    return atlas_state().guard.keeps_header(request, name, value);
}

bool atlas_owns_error(const httplib::Request & request, httplib::Response & response) {
    if (atlas_explain_refusal(response)) {
        return true;
    }
    std::string body = response.body;
    if (!atlas_format_error(request.path, response.status, body)) {
        return false;
    }
    if (body != response.body) {
        response.set_content(body, "application/json; charset=utf-8");
    }
    return true;
}
