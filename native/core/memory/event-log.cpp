#include "event-log.hpp"

#include <algorithm>

namespace atlas::memory {

// The first bytes of a key as a number; never 0.
static uint64_t number_of(const digest & key) { return std::max<uint64_t>(1, digest_hash()(key)); }

void event_log::push(const index_node & node, const memory_event & event) noexcept {
    try {
        if (waiting.size() >= MAX_WAITING) {
            n_dropped++;
            return;
        }
        waiting.push_back({event, *node.key});
    } catch (const std::bad_alloc &) {
        n_dropped++;
        return;
    }
    memory_event & added = waiting.back().event;
    added.key            = number_of(*node.key);
    added.parent         = node.parent && node.parent->parent ? number_of(*node.parent->key) : 0;
    added.kind           = (uint8_t) node.kind;
    added.strategy       = (uint8_t) node.strategy;
}

void event_log::touched(const index_node & node, uint64_t size, double saving) {
    if (is_wanted) {
        memory_event event = {};
        event.what         = ATLAS_EVENT_TOUCHED;
        event.now          = node.last_use - base;
        event.size         = std::max<uint64_t>(1, size);
        event.saving       = saving;
        push(node, event);
    }
}

void event_log::evicted(const index_node & node, int tier, int64_t priority, int64_t now) {
    if (is_wanted) {
        memory_event event = {};
        event.what         = ATLAS_EVENT_EVICTED;
        event.layer        = (uint8_t) tier;
        event.now          = now - base;
        event.priority     = priority - base;
        event.size         = 1;
        push(node, event);
    }
}

std::vector<memory_event> event_log::take(size_t max_events) {
    is_wanted = true;
    last_taken.clear();
    std::vector<memory_event> events;
    for (; !waiting.empty() && events.size() < max_events; waiting.pop_front()) {
        const record & next = waiting.front();
        events.push_back(next.event);
        if (next.event.what == ATLAS_EVENT_TOUCHED) {
            last_taken.push_back({next.key, next.event.now + base});
        }
    }
    return events;
}

} // namespace atlas::memory
