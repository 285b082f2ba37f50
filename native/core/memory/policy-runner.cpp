#include "atlas-policy-runner.hpp"

#include "atlas-facts.h"
#include "atlas-log.hpp"

#include <chrono>
#include <new>
#include <stdexcept>
#include <utility>

namespace atlas {

static constexpr auto    POLL           = std::chrono::milliseconds(200);
static constexpr int64_t PRIORITY_LIMIT = int64_t{1} << ATLAS_PRIORITY_BITS;

#define ATLAS_SAME(ours, theirs) static_assert(static_cast<int>(ours) == (theirs), "the headers differ")
ATLAS_SAME(MemoryKind::BLOCK, ATLAS_KIND_BLOCK);
ATLAS_SAME(MemoryKind::TAIL, ATLAS_KIND_TAIL);
ATLAS_SAME(MemoryKind::CHECKPOINT, ATLAS_KIND_CHECKPOINT);
ATLAS_SAME(MemoryStrategy::LRU, ATLAS_STRATEGY_LRU);
ATLAS_SAME(MemoryStrategy::LFU, ATLAS_STRATEGY_LFU);
ATLAS_SAME(MemoryStrategy::ADAPTIVE, ATLAS_STRATEGY_ADAPTIVE);
#undef ATLAS_SAME

// What happened since the last time, as the policy is told.
struct policy_runner::batch {
    std::vector<MemoryTouch>                   touches;
    std::array<std::vector<MemoryEviction>, 3> evictions; // by tier

    explicit batch(const std::vector<memory_event> & events) {
        for (const auto & event : events) {
            if (event.what == ATLAS_EVENT_EVICTED) {
                evictions.at(event.layer).push_back({event.key, event.priority, event.now});
                continue;
            }
            touches.push_back({event.key, event.parent, event.now, event.size, event.seconds,
                               static_cast<MemoryKind>(event.kind), static_cast<MemoryStrategy>(event.strategy)});
        }
    }
};

// Throws what the policy throws, and std::runtime_error for an answer that it may not give.
static std::vector<int64_t> priorities_of(AtlasMemoryPolicy & policy, int tier,
                                          const std::vector<MemoryTouch> &    touches,
                                          const std::vector<MemoryEviction> & evictions) {
    auto priorities = policy.evict_order(tier, touches, evictions);
    if (priorities.empty()) {
        return priorities;
    }
    if (priorities.size() != touches.size()) {
        throw std::runtime_error("evict_order returned " + std::to_string(priorities.size()) + " priorities for " +
                                 std::to_string(touches.size()) + " touches");
    }
    for (size_t i = 0; i < touches.size(); i++) {
        if (priorities[i] <= -PRIORITY_LIMIT || priorities[i] >= PRIORITY_LIMIT) {
            throw std::runtime_error("evict_order returned the priority " + std::to_string(priorities[i]) +
                                     ", which has more than 62 bits");
        }
        if (!policy.admit(tier, touches[i])) {
            // below that of entries from before the start; among themselves in the order of touches
            priorities[i] = 1 - PRIORITY_LIMIT + touches[i].now;
        }
    }
    return priorities;
}

static std::vector<int> tiers_with_budget(const memory_options & options) {
    std::vector<int> tiers;
    if (options.ram_bytes > 0) {
        tiers.push_back(1);
    }
    if (options.disk_bytes > 0 && !options.path.empty()) {
        tiers.push_back(2);
    }
    return tiers;
}

policy_runner::policy_runner(memory_store & store, std::shared_ptr<AtlasMemoryPolicy> policy)
    : store(store), policy(std::move(policy)), tiers(tiers_with_budget(store.options())) {
    store.take_events(0); // those that come from now on are kept
    thread = std::thread([this] { run(); });
}

void policy_runner::end() {
    {
        const std::lock_guard<std::mutex> held(mutex);
        is_ending = true;
    }
    changed.notify_one();
    if (thread.joinable()) {
        thread.join();
        policy.reset();
    }
}

void policy_runner::run() {
    std::unique_lock<std::mutex> held(mutex);
    while (!is_ending) {
        held.unlock();
        bool has_more = false, is_out_of_memory = false;
        try {
            has_more = work();
        } catch (const std::bad_alloc &) { // of the events, or of what there is to say of a failure
            is_out_of_memory = true;
        }
        held.lock();
        counts.failures += is_out_of_memory ? 1 : 0;
        if (!has_more) {
            changed.wait_for(held, POLL, [this] { return is_ending; });
        }
    }
}

// Returns whether more events may wait.
bool policy_runner::work() {
    const auto began  = std::chrono::steady_clock::now();
    const auto events = store.take_events(ATLAS_MAX_EVENTS);
    if (events.empty()) {
        return false;
    }
    const batch happened(events);
    for (const int tier : tiers) {
        order(tier, happened);
    }
    const bool                        is_full = events.size() >= ATLAS_MAX_EVENTS;
    const std::lock_guard<std::mutex> held(mutex);
    counts.batches++;
    counts.events += events.size();
    counts.late += is_full ? 1 : 0;
    counts.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
    return is_full;
}

void policy_runner::order(int tier, const batch & happened) {
    const auto & evictions = happened.evictions.at((size_t) tier);
    if (happened.touches.empty() && evictions.empty()) {
        return;
    }
    std::string problem;
    try {
        const auto priorities = priorities_of(*policy, tier, happened.touches, evictions);
        store.set_order(tier, priorities.data(), priorities.size());
    } catch (const std::exception & error) {
        problem = *error.what() != '\0' ? error.what() : "it threw an exception that says nothing";
    } catch (...) {
        problem = "it threw what is no std::exception";
    }
    note(tier, problem);
}

// problem: empty where the call did what it should.
void policy_runner::note(int tier, const std::string & problem) {
    bool is_new = false;
    {
        const std::lock_guard<std::mutex> held(mutex);
        auto &                            last = problems.at((size_t) tier);
        counts.failures += problem.empty() ? 0 : 1;
        is_new = !problem.empty() && last.empty();
        last   = problem;
    }
    if (is_new) {
        logf(LogLevel::ERROR, "the program's memory policy fails in layer %d, where the server's own order holds: %s",
             tier, problem.c_str());
    }
}

policy_stats policy_runner::stats() const {
    const std::lock_guard<std::mutex> held(mutex);
    policy_stats                      now = counts;
    now.tiers                             = tiers;
    now.problem                           = problems[1].empty() ? problems[2] : problems[1];
    return now;
}

} // namespace atlas
