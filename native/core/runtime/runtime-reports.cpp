// What a server tells about itself: the status and the metrics. Python adds to both when it does so in time.
#include "atlas-facts.h"
#include "atlas-in-effect.hpp"
#include "atlas-runtime.hpp"
#include "metrics-export.hpp"
#include "tier-listing.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <numeric>
#include <utility>

namespace atlas {

using json = nlohmann::ordered_json;

static const char OPENMETRICS[]     = "application/openmetrics-text";
static const char OPENMETRICS_END[] = "# EOF\n";

// A limit in bytes, or null where there is none: JavaScript cannot hold the number that stands for it.
static json limit_json(uint64_t bytes) { return bytes < UNLIMITED_BYTES ? json(bytes) : json(); }

static json stats_json(const memory_stats & stats, const memory_options & options) {
    return {
        {"ram",
         {{"budget", limit_json(options.ram_bytes)},
          {"entries", stats.ram_entries},
          {"bytes", stats.ram_bytes},
          {"ready", stats.ready_bytes},
          {"held",
           {{"bytes", stats.held_bytes},
            {"limit", limit_json(stats.held_limit)},
            {"waiting", stats.lookups_waiting},
            {"waited", stats.lookups_waited}}},
          {"evicted", stats.evicted_ram},
          {"drops", stats.ram_drops}}},
        {"disk",
         {{"budget", options.disk_bytes},
          {"entries", stats.disk_entries},
          {"bytes", stats.disk_bytes},
          {"evicted", stats.evicted_disk},
          {"encrypted", options.seal != nullptr},
          {"not_encrypted", stats.plain_files},
          {"index_complete", stats.index_complete},
          {"problem", stats.disk_problem.empty() ? json() : json(stats.disk_problem)},
          {"retry_s", stats.disk_problem.empty() ? json() : json(stats.disk_retry_s)}}},
        {"index", {{"budget", options.index_bytes}, {"bytes", stats.index_bytes}}},
        {"pending", {{"entries", stats.pending_entries}, {"bytes", stats.pending_bytes}}},
        {"written",
         {{"entries", stats.written_entries},
          {"bytes", stats.written_bytes},
          {"failures", stats.write_failures},
          {"drops", stats.write_drops}}},
        {"read", {{"entries", stats.read_entries}, {"bytes", stats.read_bytes}, {"failures", stats.read_failures}}},
        {"preloaded",
         {{"entries", stats.preloaded_entries},
          {"bytes", stats.preloaded_bytes},
          {"complete", stats.preload_complete}}},
        {"sessions", stats.sessions},
        {"session_drops", stats.session_drops},
        {"pinned",
         {{"bytes", stats.pinned_bytes}, {"limit", limit_json(stats.pinned_limit)}, {"beyond", stats.unpinned_bytes}}},
        {"event_drops", stats.event_drops},
        {"orphan_drops", stats.orphan_drops},
        {"damaged_files", stats.bad_checksum},
        {"foreign_files", stats.foreign_files},
    };
}

// Null where nothing is shared.
static json shared_json(const shared_stats & stats) {
    if (!stats.is_on) {
        return json();
    }
    return {
        {"url", stats.address},
        {"problem", stats.problem.empty() ? json() : json(stats.problem)},
        {"retry_s", stats.problem.empty() ? json() : json(stats.retry_s)},
        {"lookups", stats.lookups},
        {"hits", stats.hits},
        {"waited", stats.waited},
        {"asked", stats.asked},
        {"found", stats.found},
        {"timeouts", stats.timeouts},
        {"below_break_even", stats.below_break_even},
        {"damaged", stats.damaged},
        {"read", {{"entries", stats.read_entries}, {"bytes", stats.read_bytes}, {"failures", stats.read_failures}}},
        {"written",
         {{"entries", stats.written_entries},
          {"bytes", stats.written_bytes},
          {"failures", stats.write_failures},
          {"already_there", stats.already_there},
          {"drops", stats.drops}}},
        {"kept", stats.kept},
        {"queue", {{"entries", stats.queue_entries}, {"bytes", stats.queue_bytes}}},
        {"round_trip_ms", stats.round_trip_s * 1000},
        {"bytes_per_s", stats.bytes_per_s},
    };
}

static json hashing_json(const hashing_progress & now) {
    return {{"bytes", now.bytes}, {"total", now.total}, {"problem", now.problem.empty() ? json() : json(now.problem)}};
}

static json background_json(const background_stats & stats) {
    json shown = {{"running", stats.running},
                  {"waiting", stats.waiting},
                  {"refused", stats.refused},
                  {"events_kept_of", stats.ended_kept},
                  {"event_bytes", stats.event_bytes}};
    for (size_t i = 0; i < N_BACKGROUND_ENDS; i++) {
        shown[BACKGROUND_END_NAMES[i]] = stats.ended[i];
    }
    return shown;
}

// As the plugin `eviction` tells of its own.
static json policy_json(const policy_runner & policy) {
    const auto stats = policy.stats();
    return {{"decided_by", "program"},    {"layers", stats.tiers},
            {"batches", stats.batches},   {"events", stats.events},
            {"late", stats.late},         {"seconds", stats.seconds},
            {"failures", stats.failures}, {"problem", stats.problem.empty() ? json() : json(stats.problem)}};
}

static std::string why_not_kept(size_t n_slots) {
    return n_slots == 0 ? ""
                        : "What " + std::to_string(n_slots) +
                              " slot(s) compute is not kept: they go on from what was loaded or moved there, until a "
                              "prompt goes on from before that";
}

static std::string why_not_shared(const shared_stats & stats) {
    return stats.problem.empty() ? "" : "What servers share does not work now: " + stats.problem;
}

static std::string why_plain(uint64_t n) {
    return n == 0
               ? ""
               : std::to_string(n) +
                     " entries on disk are from before encryption was switched on: they are encrypted one by one, and "
                     "those that are left at the next start";
}

std::vector<listed_tier> runtime::listed(const memory_stats & stats) const {
    std::array<uint64_t, N_TIERS + 1> restored = {};
    const auto &                      by_tier  = restores[static_cast<size_t>(restore_result::restored)];
    std::copy(by_tier.begin(), by_tier.end(), restored.begin());
    return list_tiers(stats, store->options(), brought.all(), restored);
}

std::string runtime::status_json() {
    const std::chrono::duration<double> uptime = std::chrono::steady_clock::now() - started;
    const std::lock_guard<std::mutex>   lock(model_mutex);
    const auto                          pool    = requests.pool().stats();
    const auto                          known   = memory_root.now();
    json                                notices = json::array();
    json                                memory;
    if (store && known.is_settled && known.problem.empty()) {
        const auto stats          = store->stats();
        memory                    = stats_json(stats, store->options());
        memory["shared"]          = shared_json(stats.shared);
        memory["tiers"]           = tiers_json(listed(stats));
        memory["path"]            = store->options().path.empty() ? json() : json(store->options().path);
        memory["root"]            = known.root.empty() ? json() : json(known.root);
        memory["hashing"]         = known.hashing ? hashing_json(*known.hashing) : json();
        memory["state_of_others"] = {{"is_tried", known.is_trying},
                                     {"proof", known.proof.empty() ? json() : json(known.proof)},
                                     {"only", known.others.empty() ? json() : json(known.others)}};
        memory["results"]         = json::object();
        for (size_t i = 0; i < N_RESTORE_RESULTS; i++) {
            memory["results"][RESTORE_RESULT_NAMES[i]] =
                std::accumulate(restores[i].begin(), restores[i].end(), uint64_t{0});
        }
        const size_t n_inexact  = loop_write_backs.count_inexact();
        memory["inexact_slots"] = n_inexact;
        for (const std::string & notice : {known.why_not_on_disk(), known.proof, known.others, why_not_kept(n_inexact),
                                           why_plain(stats.plain_files), why_not_shared(stats.shared)}) {
            if (!notice.empty()) {
                notices.push_back(notice);
            }
        }
        for (const shared_stats & one : stats.linked) {
            if (one.number > SHARED_TIER && !one.problem.empty()) {
                notices.push_back("Layer " + std::to_string(one.number) + " does not work now: " + one.problem);
            }
        }
    } else if (!known.problem.empty()) {
        memory = {{"problem", known.problem}};
        notices.push_back("The memory of this model's state is off: " + known.problem);
    }
    if (!tenants_notice.empty()) {
        notices.push_back(tenants_notice);
    }
    json status = {
        {"memory", memory},
        {"initialized", model_loaded},
        {"context_pool_size", pool.pool_size},
        {"pool",
         {{"contexts", pool.pool_size},
          {"in_use", pool.slots_in_use},
          {"in_progress", pool.in_progress},
          {"waiting", pool.waiting},
          {"too_many", pool.too_many},
          {"exhausted", pool.exhausted},
          {"degraded", pool.degraded},
          {"mean_service_s", pool.mean_service_s}}},
        {"background", background_json(in_background.stats())},
        {"latency_budget_breaches", requests.budget_breaches()},
        {"conversations_dropped", requests.conversations().dropped()},
        {"metrics_enabled", config()->enable_metrics_collection},
        {"in_effect", json::parse(in_effect_json(*config()))},
        {"uptime_seconds", uptime.count()},
        {"model", model_loaded ? json(model.name) : json()},
        {"server_version", server_version},
        {"config_file", all_settings.config_file().empty() ? json() : json(all_settings.config_file())},
        {"notices", notices},
    };
    if (policy) {
        status["memory_policy"] = policy_json(*policy);
    }
    return status.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::vector<metric_family> runtime::families() {
    metrics_facts facts;
    facts.pool            = requests.pool().stats();
    facts.background      = in_background.stats();
    facts.budget_breaches = requests.budget_breaches();
    facts.server_version  = server_version;
    facts.uptime_s        = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
    if (store) {
        facts.memory      = store->stats();
        facts.ram_bytes   = store->options().ram_bytes;
        facts.disk_bytes  = store->options().disk_bytes;
        facts.index_bytes = store->options().index_bytes;
        facts.tiers       = listed(facts.memory);
    }
    for (size_t i = 0; i < N_RESTORE_RESULTS; i++) {
        std::copy(restores[i].begin(), restores[i].end(), facts.restores[i].begin());
    }
    facts.hooks = embedded.hooks().tallies();
    for (auto & each : embedded.tiers().tallies()) {
        facts.hooks.push_back(std::move(each));
    }
    facts.untold = embedded.hooks().dropped();
    std::copy(late.begin(), late.end(), facts.late.begin());
    {
        const std::lock_guard<std::mutex> lock(model_mutex);
        facts.model = model.name;
    }
    return metrics_families(requests.recorded(), facts);
}

std::optional<http_response> runtime::ask_python(python_part part, http_request request) {
    const std::chrono::milliseconds patience(config()->python_patience_ms);
    auto answer = python_calls.run([this, request = std::move(request)] { return embedded.handle(request); }, patience);
    late[static_cast<size_t>(part)] += answer ? 0 : 1;
    return answer;
}

http_response runtime::show_status(const http_request & request) {
    auto answer = ask_python(python_part::status, request);
    return answer ? std::move(*answer)
                  : show_own_status(request.is_admin, "Python did not answer within " +
                                                          std::to_string(config()->python_patience_ms) +
                                                          " ms, so what it adds is missing");
}

http_response runtime::show_own_status(bool is_admin, const std::string & problem) {
    json data     = json::parse(status_json());
    json notices  = data.at("notices");
    json problems = json::array({problem});
    data.erase("notices");
    if (policy && !policy->stats().problem.empty() && is_admin) {
        problems.push_back("the program's memory policy fails: " + policy->stats().problem);
    }
    data["memory_persistence"] = python_problem.empty() ? json() : json(false); // null: not known
    if (!is_admin) {
        json       shown  = json::object();
        const auto memory = data.at("memory");
#define ATLAS_SHOW(name) shown[name] = data.at(name);
        ATLAS_TENANT_STATUS(ATLAS_SHOW)
#undef ATLAS_SHOW
        shown["memory"] = memory.is_object() ? json::object() : json();
        if (memory.contains("problem")) {
            shown["memory"]["problem"] = memory.at("problem");
        }
        data    = std::move(shown);
        notices = json::array();
    }
    const json document = {{"status", "degraded"}, {"problems", problems}, {"notices", notices}, {"data", data}};

    http_response response;
    response.body = document.dump(-1, ' ', false, json::error_handler_t::replace);
    return response;
}

// Whether the client takes OpenMetrics. Versions and weights do not matter, as there is one version.
static bool takes_openmetrics(const http_request & request) {
    for (const auto & [name, value] : request.headers) {
        for (size_t begin = 0; name == "accept" && begin <= value.size();) {
            const size_t end  = std::min(value.find(',', begin), value.size());
            std::string  kind = value.substr(begin, end - begin);
            kind              = kind.substr(0, kind.find(';'));
            kind.erase(std::remove_if(kind.begin(), kind.end(), [](char c) { return c == ' ' || c == '\t'; }),
                       kind.end());
            std::transform(kind.begin(), kind.end(), kind.begin(),
                           [](char c) { return c >= 'A' && c <= 'Z' ? c | 0x20 : c; });
            if (kind == OPENMETRICS) {
                return true;
            }
            begin = end + 1;
        }
    }
    return false;
}

http_response runtime::show_metrics(http_request request) {
    if (!config()->enable_metrics_collection) {
        return error_response(503, metrics_off(*config()));
    }
    const bool is_openmetrics = takes_openmetrics(request);
    request.headers.clear();
    if (is_openmetrics) {
        request.headers.emplace_back("accept", OPENMETRICS);
    }
    std::string added = is_openmetrics ? OPENMETRICS_END : "";
    if (python_problem.empty()) {
        auto answer = ask_python(python_part::metrics, std::move(request));
        if (answer && answer->status == 200) {
            added = std::move(answer->body);
        }
    }
    http_response response;
    response.content_type = is_openmetrics ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
                                           : "text/plain; version=0.0.4; charset=utf-8";
    response.body =
        families_text(families(), is_openmetrics ? exposition::openmetrics : exposition::prometheus) + added;
    return response;
}

} // namespace atlas
