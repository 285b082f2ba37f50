#include "atlas-llama-server.h"

#include "arg.h"
#include "atlas-asleep.h"
#include "atlas-authenticate.h"
#include "atlas-background.h"
#include "atlas-build.h"
#include "atlas-error.hpp"
#include "atlas-http-guard.h"
#include "atlas-limits.h"
#include "atlas-log.hpp"
#include "atlas-memory-setup.h"
#include "atlas-router.h"
#include "atlas-runtime.hpp"
#include "atlas-server-state.h"
#include "atlas-slot-files.h"
#include "build-info.h"
#include "log.h"
#include "server-common.h"
#include "server-context.h"
#include "server-http.h"

#include <dlfcn.h>

#include <climits>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <locale>
#include <utility>

static const std::string ROUTE_ROOT = "/v1/atlas";

//
// options
//

// common_arg takes plain function pointers, so each row of the table gets a function of its own
template <size_t I> static void set_text(common_params &, const std::string & value) {
    atlas_state().settings.set(I, value, atlas::setting_origin::flag);
}

template <size_t I> static void set_bool(common_params &, bool value) {
    atlas_state().settings.set(I, value ? "1" : "0", atlas::setting_origin::flag);
}

template <size_t I> static common_arg make_option() {
    const auto &      info = atlas::settings::table()[I];
    const std::string help = std::string(info.help) + "\n(env: " + info.env + ")";
    if (std::string(info.type) == "bool") {
        static const std::string negative = "--no-" + info.flag.substr(2);
        return common_arg({info.flag.c_str()}, {negative.c_str()}, help, set_bool<I>);
    }
    return common_arg({info.flag.c_str()}, info.type, help, set_text<I>);
}

template <size_t... I> static void add_table(common_params_context & ctx_arg, std::index_sequence<I...>) {
    (ctx_arg.options.push_back(make_option<I>()), ...);
}

static constexpr size_t N_SETTINGS = 0
#define ATLAS_SETTING(...) +1
#include "atlas-settings.def"
#undef ATLAS_SETTING
    ;

static void add_options(common_params_context & ctx_arg) {
    ctx_arg.options.push_back(
        common_arg({"--atlas-config"}, "FILE",
                   "TOML file with settings, by the names that GET /v1/atlas/config shows\n"
                   "(env: ATLAS_CONFIG)",
                   [](common_params &, const std::string & value) { atlas_state().config_file = value; }));
    add_table(ctx_arg, std::make_index_sequence<N_SETTINGS>());
}

void atlas_prepare_options() { common_params_add_options = add_options; }

//
// life
//

// Throws std::invalid_argument.
static void settle_settings(atlas::settings & settings, std::string config_file) {
    const auto   unknown = settings.read_environment();
    const char * file    = std::getenv("ATLAS_CONFIG");
    if (config_file.empty() && file != nullptr) {
        config_file = file;
    }
    if (!config_file.empty()) {
        settings.read_file(config_file);
    }
    atlas::apply_logging(*settings.values());
    for (const auto & name : unknown) {
        atlas::logf(atlas::LogLevel::WARN, "environment variable %s is not known and is ignored", name.c_str());
    }
}

// libstdc++ fills these caches on their first use without a lock, as std::regex on HTTP threads has it do
// (https://gcc.gnu.org/bugzilla/show_bug.cgi?id=77704).
static void fill_caches_of_locale() {
    const auto & characters = std::use_facet<std::ctype<char>>(std::locale());
    for (int c = 0; c <= UCHAR_MAX; c++) {
        characters.narrow((char) c, '\0');
        characters.widen((char) c);
    }
}

atlas_server::atlas_server() : state(atlas_state()) {}

bool atlas_server::start(common_params & params, bool is_run_by_cli) {
    if (is_run_by_cli) {
        return true;
    }
    atlas_prepare_stacks();
    fill_caches_of_locale();
    atlas_use_llama_log();
    auto & settings   = state.settings;
    state.shows_slots = params.endpoint_slots;
    state.slot_files  = params.slot_save_path;
    try {
        settle_settings(settings, state.config_file);
        if (!settings.values()->enabled) {
            return true;
        }
        const bool is_router = atlas_is_router(params);
        // before a router's child gets a place of its own: all of them share the tenants' secret
        const auto tenants = atlas_settle_tenants(params, settings, is_router);
        atlas_settle_place(params, settings);
        state.guard.settle(params, *settings.values(), is_router);
        const bool is_started = atlas_start_runtime(state, params, tenants, !is_router);
        atlas_want_keys(params);
        atlas_end_without_destructors(); // to come before the destructors of what the start made
        if (is_started) {
            atlas_begin_hashing(params);
        }
        return is_started;
    } catch (const std::exception & e) {
        atlas::log(atlas::LogLevel::ERROR, e.what());
        return false;
    }
}

static atlas::http_response refuse_of_router(const atlas::http_request &, const std::function<bool()> &) {
    return atlas::error_response(
        400, "a router has no model: its models' servers load the same plugins, which can ask there");
}

void atlas_server::ready(const std::string & model_name, int n_slots) const {
    if (state.runtime) {
        state.runtime->set_model({model_name, n_slots});
        state.runtime->routes().open(n_slots > 0 ? atlas_calls_of_plugins(state, state.routes) : refuse_of_router);
    }
}

//
// routes
//

static std::string lower(std::string text) {
    for (char & c : text) {
        c = c >= 'A' && c <= 'Z' ? (char) (c - 'A' + 'a') : c;
    }
    return text;
}

static std::unique_ptr<server_http_res> answer(const atlas_server_state & state, const server_http_req & req,
                                               const char * method) {
    const auto          who = atlas_sender(req.headers);
    atlas::http_request request;
    request.method   = method;
    request.path     = req.path.substr(state.route_prefix.size());
    request.query    = req.query_string;
    request.body     = req.body;
    request.tenant   = who.tenant;
    request.account  = who.account;
    request.is_admin = who.is_admin;
    for (const auto & [name, value] : req.headers) {
        request.headers.emplace_back(lower(name), value);
    }
    auto response               = state.runtime->handle(request);
    atlas_is_error_of_handler() = response.status >= 400;
    return atlas_server_response(std::move(response));
}

// Whether the request says which model it is about.
static bool names_model(const server_http_req & req, bool has_body) {
    if (!has_body) {
        return !req.get_param("model").empty();
    }
    try {
        const json body = json::parse(req.body);
        return body.is_object() && body.contains("model") && body.at("model").is_string();
    } catch (const common_json_error &) {
        return false; // the router itself says what is wrong with it
    }
}

// Upstream's handler of POST /slots/N, which says that a slot was saved when its file will outlive a power loss.
static atlas_handler with_durable_saves(const atlas_handler & stock, const std::string & slot_files) {
    return [stock, slot_files](const server_http_req & req) {
        auto response = stock(req);
        if (response->status == 200 && !response->data.empty() && req.get_param("action") == "save") {
            const std::string name = json::parse(req.body).at("filename");
            atlas_sync_slot_file(slot_files + name);
        }
        return response;
    };
}

// Upstream's handler of POST /lora-adapters: the next request is looked up under the scales that it has set.
static atlas_handler with_told_scales(const atlas_handler & stock, atlas_adapters & adapters) {
    return [stock, &adapters](const server_http_req & req) {
        auto response = stock(req);
        if (response->status == 200 && !response->data.empty()) {
            adapters.set_scales(parse_lora_request(json::parse(req.body)));
        }
        return response;
    };
}

void atlas_server::add_routes(const server_http_context & ctx_http, server_routes & routes, const atlas_handler & get,
                              const atlas_handler & post) const {
    if (!get) {
        routes.post_slots         = with_durable_saves(routes.post_slots, state.slot_files);
        routes.post_lora_adapters = with_told_scales(routes.post_lora_adapters, state.adapters);
    }
    if (!state.runtime) {
        return;
    }
    state.route_prefix = ctx_http.path_prefix;
    if (!get) {
        routes.get_metrics = atlas_with_metrics(*state.runtime, state.sleep, routes.get_metrics);
        routes.get_slots =
            state.shows_slots ? atlas_with_slots_asleep(state.sleep, routes.get_slots) : routes.get_slots;
    }
    if (!get) {
        routes.post_responses_tok_oai = atlas_with_earlier_counted(routes.post_responses_tok_oai);
    }
    state.routes = atlas_routes_of(routes);

    const auto handler = [&state = state](const char * method, const atlas_handler & to_model, bool has_body) {
        return [&state, method, to_model, has_body](const server_http_req & req) {
            // whoever has no key must not have a model loaded
            if (!to_model || atlas_is_public(req.path) || !names_model(req, has_body)) {
                return answer(state, req, method);
            }
            auto response = to_model(req);
            // what the model's server answers is passed on as it comes; what the router says of the model is not
            atlas_is_error_of_handler() = response->is_stream() && response->status >= 400;
            return response;
        };
    };
    const std::string pattern = ROUTE_ROOT + "/.*";
    ctx_http.get(pattern, handler("GET", get, false));
    ctx_http.post(pattern, handler("POST", post, true));
    ctx_http.del(pattern, handler("DELETE", nullptr, false));
    const std::string responses = "/v1/responses/.*";
    ctx_http.get(responses, handler("GET", get, false));
    ctx_http.del(responses, handler("DELETE", nullptr, false));
    for (const char * conversations : {"/v1/conversations", "/v1/conversations/.*"}) {
        ctx_http.get(conversations, handler("GET", get, false));
        ctx_http.post(conversations, handler("POST", post, true));
        ctx_http.del(conversations, handler("DELETE", nullptr, false));
    }
    // Not the very path of upstream's POST: the first of a path stands for it on the route of Vertex AI.
    ctx_http.get("/v1/chat/(completions)", handler("GET", get, false));
    const std::string completions = "/v1/chat/completions/.*";
    ctx_http.get(completions, handler("GET", get, false));
    ctx_http.del(completions, handler("DELETE", nullptr, false));
    ctx_http.post("/v1/chat/completions/chatcmpl-.*", handler("POST", post, true)); // below it upstream has others
    for (const char * path : {"/v1/responses/.+/cancel", "/v1/responses/compact"}) {
        ctx_http.post(path, handler("POST", post, true)); // others there are upstream's
    }
}

bool atlas_is_public(const std::string & path) {
    return atlas_active() && path == atlas_state().route_prefix + ROUTE_ROOT + "/dashboard";
}

bool atlas_owns_path(const std::string & path) {
    const std::string & prefix = atlas_state().route_prefix;
    return path.compare(0, prefix.size(), prefix) == 0 && atlas::is_atlas_path(path.substr(prefix.size()));
}

bool atlas_format_error(const std::string & path, int status, std::string & body) {
    const bool is_final = std::exchange(atlas_is_error_of_handler(), false);
    if (is_final) {
        return true;
    }
    if (!atlas_active() || !atlas_owns_path(path)) {
        return false;
    }
    std::string message = status == 404 ? "there is no such route for this method" : "the request cannot be processed";
    const json  parsed  = json::parse_no_throw(body);
    if (parsed.is_object() && parsed.contains("error") && parsed.at("error").is_object()) {
        message = parsed.at("error").value("message", message.c_str());
    }
    body = atlas::error_body(status, message);
    return true;
}
