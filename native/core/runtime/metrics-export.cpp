#include "metrics-export.hpp"

#include "family-list.hpp"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <utility>

namespace atlas {

namespace {

constexpr const char * TIER_NAMES[] = {"none", "ram", "disk", "shared"}; // plugins' have their numbers

constexpr shown_bounds OF_REQUESTS = {17, 42, 4};
constexpr shown_bounds OF_TOKENS   = {17, 37, 8};
constexpr shown_bounds OF_OVERHEAD = {10, 33, 4};
constexpr shown_bounds OF_PHASES   = {10, 33, 1};
constexpr shown_bounds OF_WAITS    = {17, 37, 1};

void add_requests(family_list & to, const metrics & recorded) {
    to.begin("atlas_requests_total", "counter", "Completion requests that ended.");
    for (size_t route = 0; route < N_REQUEST_ROUTES; route++) {
        for (size_t outcome = 0; outcome < N_REQUEST_OUTCOMES; outcome++) {
            for (const bool has_atlas_object : {true, false}) {
                to.add(recorded.values.count(metrics::requests(
                           static_cast<request_route>(route), static_cast<request_outcome>(outcome), has_atlas_object)),
                       {{"route", REQUEST_ROUTE_NAMES[route]},
                        {"outcome", REQUEST_OUTCOME_NAMES[outcome]},
                        {"atlas", has_atlas_object ? "yes" : "no"}});
            }
        }
    }
    to.gauge("atlas_requests_in_progress", "Completion requests that have begun and not ended.",
             recorded.in_progress.load());
    to.begin("atlas_cache_requests_total", "counter",
             "Completions that ended ok, by whether any token of the prompt was reused.");
    to.add(recorded.values.count(metrics::CACHE_HITS), {{"result", "hit"}});
    to.add(recorded.values.count(metrics::CACHE_MISSES), {{"result", "miss"}});
}

void add_times(family_list & to, const metrics & recorded, uint64_t budget_breaches) {
    const auto & from = recorded.values;
    to.histogram("atlas_request_seconds", "From a request to the end of its answer, of those that ended ok.",
                 from.read(metrics::REQUEST), OF_REQUESTS);
    to.histogram("atlas_queue_seconds", "What a sequence waited for its turn, a context and a slot.",
                 from.read(metrics::QUEUE), OF_REQUESTS);
    to.histogram("atlas_prefill_seconds", "From the start of a prompt's computing to its first token.",
                 from.read(metrics::PREFILL), OF_REQUESTS);
    to.histogram("atlas_time_to_first_token_seconds", "From a request to its first token.",
                 from.read(metrics::FIRST_TOKEN), OF_TOKENS);
    to.histogram("atlas_inter_token_seconds", "From one result of a streamed sequence to the next.",
                 from.read(metrics::INTER_TOKEN), OF_TOKENS);
    to.begin("atlas_overhead_seconds", "histogram", "What ATLAS added to a request, by phase.");
    for (size_t i = 0; i < N_REQUEST_PHASES; i++) {
        to.add_histogram(from.read(metrics::overhead(static_cast<request_phase>(i))), OF_PHASES,
                         {{"phase", REQUEST_PHASE_NAMES[i]}});
    }
    to.histogram("atlas_request_overhead_seconds", "What ATLAS added to a request.", from.read(metrics::OVERHEAD),
                 OF_OVERHEAD);
    to.counter("atlas_latency_budget_breaches_total", "Requests to which ATLAS added more than the latency budget.",
               budget_breaches);
}

void add_tokens(family_list & to, const metrics & recorded) {
    to.begin("atlas_prompt_tokens_total", "counter", "Tokens of prompts, by where their state came from.");
    for (size_t i = 0; i < N_TOKEN_SOURCES; i++) {
        to.add(recorded.values.count(metrics::prompt_tokens(static_cast<token_source>(i))),
               {{"source", TOKEN_SOURCE_NAMES[i]}});
    }
    to.counter("atlas_answer_tokens_total", "Tokens generated.", recorded.values.count(metrics::ANSWER_TOKENS));
}

void add_restores(family_list & to, const metrics & recorded, const metrics_facts & facts) {
    to.begin("atlas_restores_total", "counter", "How prompts fared with the memory.");
    for (size_t result = 0; result < N_RESTORE_RESULTS; result++) {
        const bool is_restored = static_cast<restore_result>(result) == restore_result::restored;
        for (size_t tier = is_restored ? 1 : 0; tier < (is_restored ? N_TIERS + 1 : 1); tier++) {
            const bool is_plugins = tier >= FIRST_PLUGIN_TIER;
            const bool is_listed  = std::any_of(facts.tiers.begin(), facts.tiers.end(),
                                                [&](const listed_tier & one) { return one.number == (int) tier; });
            if (!is_plugins || is_listed || facts.restores[result][tier] > 0) {
                to.add(facts.restores[result][tier], {{"result", RESTORE_RESULT_NAMES[result]},
                                                      {"layer", is_plugins ? std::to_string(tier) : TIER_NAMES[tier]}});
            }
        }
    }
    to.histogram("atlas_restore_seconds", "What putting state back into a slot took.",
                 recorded.values.read(metrics::RESTORE), OF_REQUESTS);
}

void add_evictions(family_list & to, const char * tier, const eviction_counts & counts) {
    for (size_t strategy = 0; strategy < N_CACHE_STRATEGIES; strategy++) {
        for (size_t reason = 0; reason < N_EVICTION_REASONS; reason++) {
            to.add(counts[strategy][reason], {{"layer", tier},
                                              {"strategy", CACHE_STRATEGY_NAMES[strategy]},
                                              {"reason", EVICTION_REASON_NAMES[reason]}});
        }
    }
}

double limit_of(uint64_t bytes) { return bytes < UNLIMITED_BYTES ? (double) bytes : INFINITY; }

void add_tiers(family_list & to, const metrics_facts & facts) {
    const auto & memory = facts.memory;
    const auto   each   = [&](const char * name, const char * type, const char * help, auto ram, auto disk) {
        to.begin(name, type, help);
        to.add(ram, {{"layer", "ram"}});
        to.add(disk, {{"layer", "disk"}});
    };
    each("atlas_layer_bytes", "gauge", "Bytes kept in a layer of the memory.", memory.ram_bytes, memory.disk_bytes);
    for (const listed_tier & one : facts.tiers) {
        if (one.number >= SHARED_TIER && one.bytes) {
            to.add(*one.bytes, {{"layer", one.label}});
        }
    }
    each("atlas_layer_budget_bytes", "gauge", "Bytes that a layer may keep.", limit_of(facts.ram_bytes),
         limit_of(facts.disk_bytes));
    each("atlas_layer_entries", "gauge", "Entries kept in a layer.", memory.ram_entries, memory.disk_entries);
    for (const listed_tier & one : facts.tiers) {
        if (one.number >= SHARED_TIER && one.entries) {
            to.add(*one.entries, {{"layer", one.label}});
        }
    }
    to.gauge("atlas_index_bytes", "RAM that the index of all entries takes.", memory.index_bytes);
    to.gauge("atlas_index_budget_bytes", "What it may take.", facts.index_bytes);
    to.gauge("atlas_held_bytes", "Bytes that requests hold beyond layer 1 until they are put into a slot.",
             memory.held_bytes);
    to.gauge("atlas_held_limit_bytes", "What they may hold.", limit_of(memory.held_limit));
    to.gauge("atlas_lookups_waiting", "Requests that wait for others to hold less.", memory.lookups_waiting);
    to.begin("atlas_evictions_total", "counter", "Entries that left a layer.");
    add_evictions(to, "ram", memory.evictions_ram);
    add_evictions(to, "disk", memory.evictions_disk);
    to.gauge("atlas_writes_pending_bytes", "Bytes that wait to be written to disk.", memory.pending_bytes);
    to.counter("atlas_written_bytes_total", "Bytes written to disk.", memory.written_bytes);
    to.counter("atlas_write_failures_total", "Writes, removals and syncs that the system refused.",
               memory.write_failures);
    to.counter("atlas_write_drops_total", "Entries not written, as the queue or the disk had no room.",
               memory.write_drops);
    to.counter("atlas_read_bytes_total", "Bytes read from disk.", memory.read_bytes);
    to.counter("atlas_read_failures_total", "Files that the system refused to read.", memory.read_failures);
    to.counter("atlas_damaged_files_total", "Files found damaged, and removed.", memory.bad_checksum);
    to.gauge("atlas_sessions", "Sessions that the memory knows.", memory.sessions);
    to.gauge("atlas_sessions_in_ram", "Sessions of which at least the beginning is in RAM.", memory.sessions_in_ram);
    to.gauge("atlas_pinned_bytes", "Bytes of pinned sessions.", memory.pinned_bytes);
}

void add_shared(family_list & to, const shared_stats & shared) {
    if (!shared.is_on) {
        return;
    }
    const auto two = [&](const char * name, const char * help, const char * label, auto first, uint64_t n_first,
                         auto second, uint64_t n_second) {
        to.begin(name, "counter", help);
        to.add(n_first, {{label, first}});
        to.add(n_second, {{label, second}});
    };
    to.gauge("atlas_shared_up", "1 where what servers share works, 0 where it does not.", shared.problem.empty());
    two("atlas_shared_lookups_total", "Requests that asked what servers share for state, by what they got.", "result",
        "hit", shared.hits, "miss", shared.lookups - shared.hits);
    two("atlas_shared_asked_total", "Entries that were asked for, by whether they are there.", "result", "found",
        shared.found, "missing", shared.asked - shared.found);
    two("atlas_shared_failures_total", "Failures of what servers share, by what was to be done.", "direction", "read",
        shared.read_failures, "write", shared.write_failures);
    to.counter("atlas_shared_timeouts_total", "Requests that went on without shared state, as it took too long.",
               shared.timeouts);
    to.counter("atlas_shared_below_break_even_total",
               "Requests that left shared state alone, as computing takes no longer.", shared.below_break_even);
    to.counter("atlas_shared_damaged_total", "Shared values found damaged, and removed.", shared.damaged);
    to.counter("atlas_shared_drops_total", "Entries not shared, as the queue was full.", shared.drops);
    to.counter("atlas_shared_read_bytes_total", "Bytes of shared state read.", shared.read_bytes);
    to.counter("atlas_shared_written_bytes_total", "Bytes of state shared.", shared.written_bytes);
    to.gauge("atlas_shared_queue_bytes", "Bytes that wait to be shared.", shared.queue_bytes);
    to.gauge("atlas_shared_round_trip_seconds", "What the last question to what servers share took.",
             shared.round_trip_s);
    to.gauge("atlas_shared_bytes_per_second", "At what rate shared state was read lately.", shared.bytes_per_s);
}

void add_pool(family_list & to, const metrics & recorded, const slot_pool_stats & pool) {
    to.gauge("atlas_pool_contexts", "Contexts in the pool.", pool.pool_size);
    to.gauge("atlas_pool_contexts_in_use", "Contexts in use; more than there are while standard requests wait.",
             pool.slots_in_use);
    to.gauge("atlas_pool_waiting", "Requests that wait for a context.", pool.waiting);
    to.counter("atlas_pool_leases_total", "Requests that got contexts.", pool.leases);
    to.begin("atlas_pool_wait_seconds", "histogram",
             "What requests waited for before they were with the queue of tasks.");
    for (size_t i = 0; i < N_REQUEST_WAITS; i++) {
        to.add_histogram(recorded.values.read(metrics::pool_wait(static_cast<request_wait>(i))), OF_WAITS,
                         {{"for", REQUEST_WAIT_NAMES[i]}});
    }
    to.begin("atlas_refusals_total", "counter", "Requests refused, by reason.");
    for (size_t i = 0; i < N_REFUSALS; i++) {
        to.add(recorded.values.count(metrics::refusals(static_cast<refusal>(i))), {{"reason", REFUSAL_NAMES[i]}});
    }
    to.counter("atlas_degraded_total", "Requests that went on as standard ones, as no context became free in time.",
               pool.degraded);
}

void add_background(family_list & to, const background_stats & background) {
    to.begin("atlas_background_responses", "gauge", "Responses in the background, by what they do.");
    to.add(background.running, {{"state", "running"}});
    to.add(background.waiting, {{"state", "waiting"}});
    to.begin("atlas_background_responses_ended_total", "counter", "Responses in the background that ended, by how.");
    for (size_t i = 0; i < N_BACKGROUND_ENDS; i++) {
        to.add(background.ended[i], {{"result", BACKGROUND_END_NAMES[i]}});
    }
    to.counter("atlas_background_responses_refused_total", "Responses in the background refused, as too many waited.",
               background.refused);
    to.gauge("atlas_background_event_bytes", "RAM that the events of responses in the background take.",
             background.event_bytes);
}

void add_hooks(family_list & to, const metrics_facts & facts) {
    if (facts.hooks.empty()) {
        return;
    }
    const auto each = [&](const char * name, const char * type, const char * help, auto value) {
        to.begin(name, type, help);
        for (const auto & [plugin, what, tally, tier] : facts.hooks) {
            label_list labels = {{"plugin", plugin}, {"hook", name_of(what)}};
            if (!tier.empty()) {
                labels["tier"] = tier;
            }
            to.add(value(*tally), labels);
        }
    };
    each("atlas_hook_timeouts_total", "counter", "Calls of plugins' hooks that missed their deadline.",
         [](const hook_tally & of) { return of.timeouts.load(); });
    each("atlas_hook_unserved_total", "counter",
         "Calls that Python did not begin in time, as all workers or the interpreter were busy.",
         [](const hook_tally & of) { return of.unserved.load(); });
    each("atlas_hook_late_total", "counter", "Answers of hooks that nobody waited for any more.",
         [](const hook_tally & of) { return of.late.load(); });
    each("atlas_hook_wait_seconds_total", "counter", "What requests waited for hooks.",
         [](const hook_tally & of) { return (double) of.ns.load() / 1e9; });
    each("atlas_hook_off", "gauge", "1 where a hook is off, as it missed too many deadlines in a row.",
         [](const hook_tally & of) { return of.is_off ? 1 : 0; });
    to.counter("atlas_hook_untold_total", "Ends of requests that plugins were not told of, as too many waited.",
               facts.untold);
}

// Bytes; 0 where the system does not tell.
uint64_t resident_bytes() {
    const std::unique_ptr<FILE, int (*)(FILE *)> file(std::fopen("/proc/self/statm", "r"), std::fclose);
    unsigned long                                pages = 0;
    if (!file || std::fscanf(file.get(), "%*u %lu", &pages) != 1) {
        return 0;
    }
    return (uint64_t) pages * sysconf(_SC_PAGESIZE);
}

double cpu_seconds() {
    rusage used = {};
    getrusage(RUSAGE_SELF, &used);
    const auto seconds = [](const timeval & time) { return (double) time.tv_sec + (double) time.tv_usec / 1e6; };
    return seconds(used.ru_utime) + seconds(used.ru_stime);
}

void add_process(family_list & to, const metrics_facts & facts) {
    to.gauge("atlas_process_resident_bytes", "Memory of the process that is in RAM.", resident_bytes());
    to.counter("atlas_process_cpu_seconds_total", "CPU time of the process.", cpu_seconds());
    to.gauge("atlas_uptime_seconds", "Time since ATLAS started.", facts.uptime_s);
    to.begin("atlas_python_late_total", "counter",
             "Answers that went out without what Python adds, as it took too long.");
    for (size_t i = 0; i < N_PYTHON_PARTS; i++) {
        to.add(facts.late[i], {{"for", PYTHON_PART_NAMES[i]}});
    }
    to.begin("atlas_build_info", "gauge", "Always 1; the labels say what runs.");
    to.add(1, {{"version", ATLAS_VERSION}, {"server_version", facts.server_version}, {"model", facts.model}});
}

} // namespace

std::vector<metric_family> metrics_families(const metrics & recorded, const metrics_facts & facts) {
    family_list families;
    add_requests(families, recorded);
    add_times(families, recorded, facts.budget_breaches);
    add_tokens(families, recorded);
    add_restores(families, recorded, facts);
    add_tiers(families, facts);
    add_shared(families, facts.memory.shared);
    add_tier_families(families, facts.tiers);
    add_pool(families, recorded, facts.pool);
    add_background(families, facts.background);
    add_hooks(families, facts);
    add_process(families, facts);
    return families.take();
}

} // namespace atlas
