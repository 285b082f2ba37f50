#include "event-log.hpp"

#include <algorithm>

namespace atlas::memory {

// The first bytes of a key as a number; never 0.
static uint64_t number_of(const digest & key) { return std::max<uint64_t>(1, digest_hash()(key)); }

void event_log::push(std::deque<record> & to, const index_node & node, const memory_event & event) noexcept {
    try {
        if (waiting.size() + unsynced.size() >= MAX_WAITING) {
            n_dropped++;
            return;
        }
        to.push_back({event, *node.key});
    } catch (const std::bad_alloc &) {
        n_dropped++;
        return;
    }
    memory_event & added = to.back().event;
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
        event.seconds      = saving;
        push(waiting, node, event);
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
        push(waiting, node, event);
    }
}

void event_log::written(const index_node & node, uint64_t bytes, double seconds) noexcept {
    if (is_saved_wanted) {
        memory_event event = {};
        event.what         = ATLAS_EVENT_SAVED;
        event.layer        = 2;
        event.size         = bytes;
        event.seconds      = seconds;
        event.n_tokens     = (uint32_t) node.tokens.size();
        push(unsynced, node, event);
    }
}

void event_log::durable() noexcept {
    try {
        while (!unsynced.empty()) {
            waiting.push_back(unsynced.front());
            unsynced.pop_front();
        }
    } catch (const std::bad_alloc &) {
        n_dropped += unsynced.size();
        unsynced.clear();
    }
}

std::vector<memory_event> event_log::take(size_t max_events, bool with_saved) {
    is_wanted       = true;
    is_saved_wanted = with_saved;
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
