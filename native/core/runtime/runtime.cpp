#include "atlas-runtime.hpp"

#include "atlas-background-routes.hpp"
#include "atlas-error.hpp"
#include "atlas-facts.h"
#include "atlas-in-effect.hpp"
#include "atlas-limits.hpp"
#include "atlas-log.hpp"
#include "atlas-malloc-arenas.hpp"
#include "given-keys.hpp"
#include "hook-queries.hpp"
#include "memory-queries.hpp"
#include "metrics-formats.hpp"
#include "seal-queries.hpp"
#include "shared-settings.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <utility>

namespace atlas {

using json = nlohmann::ordered_json;

runtime::runtime(settings settings, std::string server_version, python_options options)
    : all_settings(std::move(settings)), server_version(std::move(server_version)), python_where(std::move(options)),
      embedded([this](int32_t what, std::string_view argument) { return query(what, argument); }) {
    requests.set_hooks(embedded.hooks());
}

void runtime::set_tenants(const tenant_options & who) {
    tenants made(who);
    if (!made.notice().empty() && made.notice() != tenants_notice) {
        log(LogLevel::WARN, made.notice());
    }
    tenants_notice = made.notice();
    requests.set_tenants(std::move(made));
}

bool runtime::start(bool has_model, uint64_t ram_bytes, const tenant_options & given) {
    limit_malloc_arenas();
    const auto     config = all_settings.values();
    tenant_options who    = given;
    seal                  = settle_encryption(*config);
    if (auto secret = fleet_secret(*config)) {
        who.fleet = std::make_shared<secret_key>(std::move(*secret));
    }
    serves_model = has_model;
    set_tenants(who);
    apply_hook_limits(embedded.hooks(), *config);
    apply_hook_limits(embedded.tiers(), *config);
    if (config->l3_cache_size > 0) {
        logf(LogLevel::WARN, "l3_cache_size of %lld bytes does nothing: what servers share has a limit of its own",
             (long long) config->l3_cache_size);
    }
    const shared_options shared = shared_by(*config, who.fleet.get());
    records                     = records_by(*config, who.fleet.get());
    if (has_model && conversations_off(*config).empty()) {
        memory_options options;
        options.path          = memory_path();
        options.ram_bytes     = config->l1_cache_size > 0 ? config->l1_cache_size : ram_bytes;
        options.disk_bytes    = config->l2_cache_size;
        options.preload_bytes = config->preload_size;
        options.block_tokens  = config->block_tokens;
        options.write_delay_s = config->auto_save_interval_s;
        options.index_bytes   = config->index_size;
        options.shared        = shared;
        options.seal          = seal;

        options.awaits_sessions = true;
        store                   = std::make_unique<memory_store>(options);
        brought.set_memory(*store, shared);
        if (memory_policy) {
            policy = std::make_unique<policy_runner>(*store, std::move(memory_policy));
        }
    }
    python_problem = start_python();
    if (embedded.hooks().has(hook::authenticate)) {
        auto named      = who;
        named.has_names = true;
        named.all_are_admin &= named.has_keys; // else who is not named could do all
        set_tenants(named);
    }
    if (store) {
        store->sessions_restored(); // by a startup hook; without Python there are none
    }
    if (python_problem.empty()) {
        return true;
    }
    // a build without it was meant so
    logf(python_where.module.empty() ? LogLevel::INFO : LogLevel::ERROR, "Python could not start: %s",
         python_problem.c_str());
    if (config->require_python) {
        log(LogLevel::ERROR, "--atlas-require-python is given: not starting the server");
        return false;
    }
    log(LogLevel::WARN, "going on without Python: no plugins, no saved contexts; " ATLAS_ROUTE_STATUS " says so");
    return true;
}

std::string runtime::memory_path() const {
    const auto config = all_settings.values();
    return saving_off(*config).empty() ? config->memory_save_path : "";
}

std::string runtime::start_python() {
    if (python_where.module.empty()) {
        return "this build has none, it was configured with -DATLAS_PYTHON=OFF";
    }
    const auto where = find_python_environment(config()->python_home, python_where.environment);

    python_where.environment = where.path;
    const auto problem       = embedded.start(python_where);
    return problem.empty() ? "" : problem + "; the environment was given by " + where.decided_by;
}

void runtime::set_model(const model_info & new_model) {
    const std::lock_guard<std::mutex> lock(model_mutex);
    model        = new_model;
    model_loaded = true;
    requests.set_slots(new_model.n_slots);
    logf(LogLevel::INFO, "Context pool initialized with %d contexts", (int) requests.pool().stats().pool_size);
}

std::string runtime::model_name() {
    const std::lock_guard<std::mutex> lock(model_mutex);
    return model.name;
}

void runtime::let_in(request & request) {
    const phase_timer timer(&request, request_phase::parse);
    requests.check_rates(request);
    if (!request.has_atlas_object()) {
        return;
    }
    if (request.options().session_id && !embedded.running()) {
        request.degrade("sessions are not stored: Python is not running");
    }
    if (store) {
        const auto known = memory_root.now();
        if (known.problem.empty()) {
            std::vector<int> tiers = {1};
            if (!known.root.empty() && !store->options().path.empty()) {
                tiers.push_back(2);
            }
            if (!known.root.empty()) {
                const auto more = store->linked_tiers();
                tiers.insert(tiers.end(), more.begin(), more.end());
            }
            request.set_tiers(std::move(tiers));
        } else {
            request.degrade("the memory of this model's state is off: " + known.problem);
        }
    }
}

// POST /v1/atlas/memory/flush: {"timeout_s": number, "layer": the last that is waited for} or nothing.
// Of layers from 3 on.
static std::string why_not_flushed(const memory_store & store, int through) {
    for (const auto & one : store.stats().linked) {
        if (one.number <= through && !one.problem.empty()) {
            return one.problem;
        }
    }
    return "it took longer than timeout_s";
}

http_response runtime::flush(const http_request & request) {
    if (!store) {
        return error_response(
            503, serves_model
                     ? "there is no memory to flush: " + conversations_off(*config())
                     : "a router has no memory to flush: name the model whose memory is meant in the field model");
    }
    constexpr int DISK      = 2;
    double        timeout_s = config()->shutdown_timeout_s;
    int           through   = DISK;
    if (!request.body.empty()) {
        const json body = json::parse(request.body, nullptr, false);
        if (!body.is_object()) {
            return error_response(400, validation_error("body", "must be a JSON object").what());
        }
        for (const auto & [key, value] : body.items()) {
            if (key == "model" && value.is_string()) {
                continue; // for a router in front of the server
            }
            if (key == "layer") {
                if (!value.is_number_integer() || value < DISK || value > MAX_TIER) {
                    return error_response(
                        400, validation_error(key, "must be 2, the disk, 3, what servers share, or 4 to 10, what "
                                                   "plugins bring")
                                 .what());
                }
                through = value;
                continue;
            }
            if (key != "timeout_s" || !value.is_number() || !(value > 0 && value <= ATLAS_MAX_FLUSH_S)) {
                return error_response(400, validation_error(key, "flush takes timeout_s, a number above 0 and up to " +
                                                                     std::to_string(ATLAS_MAX_FLUSH_S) + ", and layer")
                                               .what());
            }
            timeout_s = value;
        }
    }
    if (const auto problem = memory_root.wait(timeout_s).why_not_on_disk(); !problem.empty()) {
        return error_response(500, "Failed to flush the memory: " + problem);
    }
    // only the admin's may hold up what other clients are waiting for
    if (!loop_write_backs.wait(timeout_s, request.is_admin)) {
        return error_response(500, "Failed to flush the memory: the running batches took longer than timeout_s");
    }
    const auto &       options = store->options();
    const flush_result result  = store->flush(timeout_s);
    if (!result.complete && !options.path.empty()) {
        const std::string problem = store->stats().disk_problem;
        return error_response(500, "Failed to make all of the memory durable: " +
                                       (problem.empty() ? "it took longer than timeout_s" : problem));
    }
    if (through >= SHARED_TIER) {
        if (const auto tiers = store->linked_tiers(); std::count(tiers.begin(), tiers.end(), through) == 0) {
            return error_response(400, "there is no layer " + std::to_string(through) + ": " +
                                           (through == SHARED_TIER ? "start the server with --atlas-shared-url"
                                                                   : "no plugin has a tier of that number"));
        }
        if (!store->flush_shared(timeout_s, through)) {
            return error_response(500, "Failed to share all of the memory: " + why_not_flushed(*store, through));
        }
    }
    try {
        if (embedded.running()) {
            embedded.perform(ATLAS_CALL_SYNC, through >= SHARED_TIER ? R"({"shared":true})" : "{}");
        }
    } catch (const error & e) {
        return error_response(e);
    }
    http_response response;
    response.body =
        json{{"status", "success"}, {"data", {{"entries", result.entries}, {"bytes", result.bytes}}}}.dump();
    return response;
}

http_response runtime::handle(const http_request & request) {
    std::shared_ptr<void> counted;
    try {
        counted = request.is_admin ? nullptr : calls.enter(request.account, *config());
    } catch (const error & e) {
        return error_response(e);
    }
    http_response response = answer(request);
    if (response.next) {
        response.next = [counted, next = std::move(response.next)](std::string & piece) { return next(piece); };
    }
    return response;
}

// Plugins' routes take whatever their authors like.
static bool is_for_plugin(const http_request & request) {
    constexpr std::string_view PLUGINS = "/v1/atlas/x/";
    return request.path.compare(0, PLUGINS.size(), PLUGINS) == 0;
}

http_response runtime::answer(const http_request & request) {
    // Python follows 1,000 levels, its own frames included.
    constexpr int MAX_DEPTH = 900;
    if (!is_for_plugin(request) && is_json_deeper_than(request.body, MAX_DEPTH)) {
        const std::string problem = "nested deeper than " + std::to_string(MAX_DEPTH) + " levels";
        return error_response(400, validation_error("body", problem).what());
    }
    if (request.method == "POST" && request.path == ATLAS_ROUTE_FLUSH) {
        return flush(request);
    }
    if (request.method == "GET" && request.path == ATLAS_ROUTE_METRICS) {
        return show_metrics(request);
    }
    if (auto made = answer_of_background(in_background, request)) {
        return std::move(*made);
    }
    const bool is_status = request.method == "GET" && request.path == ATLAS_ROUTE_STATUS;
    if (python_problem.empty()) {
        return is_status ? show_status(request) : embedded.handle(request);
    }
    if (!request.is_admin && !python_where.module.empty()) {
        return error_response(503, "Python is not running: ask with the admin's key why"); // the reason has paths in it
    }
    const std::string problem = "Python is not running: " + python_problem;
    return is_status ? show_own_status(request.is_admin, problem) : error_response(503, problem);
}

bool runtime::stop() {
    requests.close();
    for_plugins.close();
    in_background.close(std::chrono::duration_cast<background_responses::clock::duration>(
        std::chrono::duration<double>(config()->shutdown_timeout_s)));
    if (store) {
        store->end_waiting();
    }
    const double timeout_s = config()->shutdown_timeout_s;
    if (const auto why = memory_root.now().why_not_on_disk(); !why.empty() && store->stats().ram_entries > 0) {
        log(LogLevel::WARN, "What is in RAM is lost. " + why);
    }
    memory_root.give_up();
    if (store && !store->options().path.empty() && !store->flush(timeout_s).complete) {
        logf(LogLevel::WARN, "%llu entries of the memory could not be made durable within %.1f s and are lost",
             (unsigned long long) store->stats().pending_entries, timeout_s);
    }
    if (store && store->has_linked_tier() && !store->flush_shared(timeout_s)) {
        for (const auto & one : store->stats().linked) {
            if (one.queue_entries > 0) {
                logf(LogLevel::INFO, "%llu entries of the memory are not in layer %d",
                     (unsigned long long) one.queue_entries, one.number);
            }
        }
    }
    if (policy) {
        policy->end();
    }
    return embedded.stop(timeout_s);
}

// What there is to say of the memory of a process that has none, as a router's.
static std::optional<std::string> answer_without_memory(int32_t what) {
    switch (what) {
        case ATLAS_QUERY_SESSIONS:     return json{{"version", 0}, {"sessions", json::array()}}.dump();
        case ATLAS_QUERY_SESSION_EDIT: return json{{"found", false}}.dump();
        case ATLAS_QUERY_BLOCK_CHANGES:
            return json{{"anew", false}, {"more", false}, {"changes", json::array()}}.dump();
        default: return std::nullopt;
    }
}

// {"since": number}; 0 without.
static uint64_t since_of(std::string_view argument) {
    const json document = json::parse(argument, nullptr, false);
    return document.is_object() ? document.value("since", uint64_t{0}) : 0;
}

std::string runtime::change_settings(const std::string & changes) {
    auto answer = all_settings.change(changes);
    apply_hook_limits(embedded.hooks(), *config());
    apply_hook_limits(embedded.tiers(), *config());
    in_background.look();
    return answer;
}

std::optional<std::string> runtime::ask(std::string_view argument) {
    const auto asked = parse_asked_route(argument);
    if (!asked) {
        return std::nullopt;
    }
    const auto & request = asked->request;
    if (is_for_atlas(request.method, request.path)) {
        return asked_answer_json(handle(request));
    }
    return asked_answer_json(
        for_plugins.call(request, own_routes::clock::now() + asked->patience, config()->plugin_calls));
}

std::optional<std::string> runtime::query(int32_t what, std::string_view argument) {
    switch (what) {
        case ATLAS_QUERY_SEAL:
        case ATLAS_QUERY_UNSEAL:          return answer_seal_query(seal.get(), what, argument);
        case ATLAS_QUERY_RECORDS:         return records ? records->answer(argument) : no_shared_records();
        case ATLAS_QUERY_STATUS:          return status_json();
        case ATLAS_QUERY_SETTINGS:        return all_settings.to_json();
        case ATLAS_QUERY_SETTINGS_CHANGE: return change_settings(std::string(argument));
        case ATLAS_QUERY_REQUEST_SCHEMA:  return request_schema_json();
        case ATLAS_QUERY_METRICS:         return families_json(families());
        case ATLAS_QUERY_REQUESTS:        return requests.ended().since_json(since_of(argument));
        case ATLAS_QUERY_ASK:             return ask(argument);
        case ATLAS_QUERY_TIERS:           return brought.answer(argument);
        case ATLAS_QUERY_HOOKS:
        case ATLAS_QUERY_HOOKS_ENABLE:
        case ATLAS_QUERY_HOOK_TABLES:     {
            auto answer = answer_hook_query(embedded.hooks(), embedded.tiers(), what, argument);
            if (what == ATLAS_QUERY_HOOKS_ENABLE) {
                brought.try_again();
            }
            return answer;
        }
        case ATLAS_QUERY_CONVERSATIONS: return take_conversations(argument);
        default: return store ? answer_memory_query(*store, what, argument) : answer_without_memory(what);
    }
}

void runtime::count_restore(const restore_outcome & how) {
    restores[static_cast<size_t>(how.result)][how.tier]++;
    if (how.result == restore_result::restored) {
        requests.recorded().values.record(metrics::RESTORE,
                                          std::chrono::nanoseconds(static_cast<int64_t>(how.restore_ms * 1e6)));
    }
}

} // namespace atlas
