#include "atlas-authenticate.h"

#include "atlas-error.hpp"
#include "atlas-llama-server.h"
#include "atlas-request-admission.hpp"
#include "atlas-runtime.hpp"
#include "atlas-server-state.h"
#include "common.h"
#include "server-common.h"

#include <cpp-httplib/httplib.h>

#include <memory>
#include <optional>
#include <random>
#include <utility>

using atlas::hook;

namespace {

// Of the request that this thread serves.
struct meeting {
    const httplib::Request *    request = nullptr; // until its key was looked at
    std::optional<atlas::error> refusal; // a plugin's
};

meeting & met() {
    static thread_local meeting of_thread;
    return of_thread;
}

std::string head_of(const httplib::Request & request, const std::string & key) {
    json headers = json::object();
    for (const auto & [name, value] : request.headers) {
        if (request.get_header_value(name) == value) { // of one that comes twice the first counts, as for the key
            headers[name] = value;
        }
    }
    return safe_json_to_str({{"key", key}, {"method", request.method}, {"path", request.path}, {"headers", headers}});
}

std::optional<atlas::identity> ask(atlas::runtime & runtime, const httplib::Request & request,
                                   const std::string & key) {
    auto &     hooks = runtime.hooks();
    const auto said =
        hooks.ask(hooks.table(), hook::authenticate, 0, std::make_shared<const std::string>(head_of(request, key)),
                  std::make_shared<const std::string>());
    if (!said.answer) {
        return std::nullopt;
    }
    const json who = json::parse(said.answer->body);
    return runtime.gate().who().named(who.at("name").get<std::string>(), who.at("is_admin").get<bool>());
}

} // namespace

void atlas_want_keys(common_params & params) {
    if (!params.api_keys.empty() || !atlas_active() || !atlas_active()->hooks().has(hook::authenticate)) {
        return;
    }
    std::random_device random;
    std::string        nobodys; // who has no key of a plugin's cannot guess this one
    for (int i = 0; i < 8; i++) {
        nobodys += std::to_string(random()) + "-";
    }
    params.api_keys.push_back(nobodys);
}

void atlas_meet(const httplib::Request & request) {
    met()                = {};
    met().request        = &request;
    atlas_named_sender() = std::nullopt;
}

bool atlas_is_known_key(const std::vector<std::string> & keys, const std::string & presented) {
    const auto * request = std::exchange(met().request, nullptr);
    if (const auto & active = atlas_active(); request && active && active->hooks().has(hook::authenticate)) {
        try {
            atlas_named_sender() = ask(*active, *request, presented);
        } catch (const atlas::error & error) {
            met().refusal = error;
            return false;
        }
        if (atlas_named_sender()) {
            return true;
        }
    }
    bool is_known = false;
    for (const auto & key : keys) {
        is_known |= atlas::is_same_key(key, presented);
    }
    return is_known;
}

bool atlas_explain_refusal(httplib::Response & response) {
    const auto refusal = std::exchange(met().refusal, std::nullopt);
    if (!refusal) {
        return false;
    }
    const auto answer = atlas::error_response(*refusal);
    response.status   = answer.status;
    response.set_content(answer.body, answer.content_type);
    for (const auto & [name, value] : answer.headers) {
        response.set_header(name, value);
    }
    return true;
}
