// The part of the store that knows sessions. The chain of a session's draft is a session of its own behind these members; for
// who calls them it is the end of the chain of the other.
#include "atlas-log.hpp"
#include "store-impl.hpp"

#include <algorithm>
#include <unordered_set>
#include <utility>

namespace atlas {

// Between the two chains. No entry has this key.
static const digest NO_ENTRY = {};

std::string draft_session(const std::string & id) { return draft_name(id); }

void memory_store::extend_session(const std::string & id, size_t depth, const std::string & key, uint64_t n_tokens) {
    const auto digest    = digest_from_hex(key);
    uint64_t   n_dropped = 0;
    if (digest) {
        const std::lock_guard<std::mutex> held(self->state.mutex);
        session_index &                   sessions = self->state.entries.sessions;
        sessions.extend(id, depth, *digest, n_tokens);
        if (const session * whole = is_draft(id) ? sessions.find(without_draft(id)) : nullptr) {
            sessions.set_pinned(id, whole->is_pinned);
            sessions.update_pin(id, 1);
        }
        n_dropped = sessions.dropped();
    }
    if (n_dropped > 0 && !self->is_overflow_logged.exchange(true)) {
        log(LogLevel::WARN, "more sessions than the memory keeps apart: those that are idle longest lose their names; "
                            "a shorter --atlas-session-ttl ends them earlier");
    }
}

void memory_store::impl::restore(const std::string & id, const session & was) {
    session_index & to      = state.entries.sessions;
    uint64_t        version = 0;
    size_t          done    = 0;
    state.in_steps([&] {
        version           = done == 0 ? to.restore(id, was) : version;
        const size_t n    = std::min(AT_ONCE, was.chain.size() - done);
        const bool   goes = version > 0 && to.append(id, version, was.chain.data() + done, n);
        done += n;
        return goes && done < was.chain.size();
    });
}

void memory_store::restore_session(const memory_session & from) {
    session was, draft;
    was.n_tokens = draft.n_tokens = from.n_tokens;
    was.last_used = draft.last_used = from.last_used;
    was.is_pinned = draft.is_pinned = from.is_pinned;
    bool is_behind                  = false;
    for (const std::string & key : from.chain) {
        const auto digest = digest_from_hex(key);
        if (!digest) {
            break;
        }
        if (*digest == NO_ENTRY) {
            is_behind = true;
        } else {
            (is_behind ? draft : was).chain.push_back(*digest);
        }
    }
    self->restore(from.id, was);
    if (!draft.chain.empty()) {
        self->restore(draft_name(from.id), draft);
    }
}

void memory_store::sessions_restored() {
    {
        const std::lock_guard<std::mutex> held(self->state.mutex);
        self->state.entries.knows_sessions = true;
    }
    self->state.work.notify_one();
}

std::vector<memory_session> memory_store::sessions_since(uint64_t version, size_t max_sessions) const {
    // references are dropped here because this is called all the time
    self->state.in_steps([&] { return self->state.entries.sessions.unref_pending(AT_ONCE); });
    std::vector<std::string> ids;
    uint64_t                 last = version;
    {
        const std::lock_guard<std::mutex> held(self->state.mutex);
        ids = self->state.entries.sessions.changed_since(version, max_sessions);
        if (ids.empty()) {
            return {};
        }
        last = self->state.entries.sessions.find(ids.back())->version;
    }
    for (std::string & id : ids) {
        id = without_draft(id);
    }
    // a session comes once, where it or its draft changed last
    std::vector<std::string>        once;
    std::unordered_set<std::string> seen;
    for (auto id = ids.rbegin(); id != ids.rend(); ++id) {
        if (seen.insert(*id).second) {
            once.push_back(*id);
        }
    }
    std::reverse(once.begin(), once.end());
    std::vector<memory_session> found = find_sessions(once);
    // a session that changed meanwhile has a larger version, and is told again by the next call
    for (memory_session & session : found) {
        session.version = std::min(session.version, last);
    }
    return found;
}

std::optional<session> memory_store::impl::copy(const std::string & id) {
    const std::lock_guard<std::mutex> held(state.mutex);
    const session * const             found = state.entries.sessions.find(id);
    return found ? std::make_optional(*found) : std::nullopt;
}

template <typename F> void memory_store::impl::for_parts(const std::vector<digest> & chain, F act) {
    size_t done = 0;
    state.in_steps([&] {
        const size_t n = std::min(AT_ONCE, chain.size() - done);
        act(chain.data() + done, n);
        done += n;
        return done < chain.size();
    });
}

std::vector<memory_session> memory_store::find_sessions(const std::vector<std::string> & ids) const {
    std::vector<memory_session> found;
    for (const std::string & id : ids) {
        auto copied = self->copy(id);
        if (!copied || is_draft(id)) {
            continue;
        }
        if (const auto draft = self->copy(draft_name(id))) {
            copied->chain.push_back(NO_ENTRY);
            copied->chain.insert(copied->chain.end(), draft->chain.begin(), draft->chain.end());
            copied->version = std::max(copied->version, draft->version);
        }
        memory_session described;
        described.id        = id;
        described.n_tokens  = copied->n_tokens;
        described.last_used = copied->last_used;
        described.is_pinned = copied->is_pinned;
        described.version   = copied->version;
        for (const digest & key : copied->chain) {
            described.chain.push_back(digest_hex(key));
        }
        self->for_parts(copied->chain,
                        [&](const digest * keys, size_t n) { self->state.entries.add_sizes(keys, n, described); });
        found.push_back(std::move(described));
    }
    return found;
}

std::string memory_store::pin_session(const std::string & id, bool is_pinned) {
    const std::vector<std::string> parts = {id, draft_name(id)};
    uint64_t                       bytes = 0;
    for (const std::string & part : parts) {
        if (const auto copied = self->copy(part); copied && is_pinned) {
            self->for_parts(copied->chain, [&](const digest * keys, size_t n) {
                bytes += self->state.entries.unpinned_bytes(keys, n);
            });
        }
    }
    {
        const std::lock_guard<std::mutex> held(self->state.mutex);
        if (const std::string problem = is_pinned ? self->state.entries.pin(id, bytes) : ""; !problem.empty()) {
            return problem;
        }
        for (const std::string & part : parts) {
            self->state.entries.sessions.set_pinned(part, is_pinned);
        }
    }
    for (const std::string & part : parts) {
        self->state.in_steps([&] { return self->state.entries.sessions.update_pin(part, AT_ONCE); });
    }
    return "";
}

std::optional<uint64_t> memory_store::impl::remove(const std::string & id, bool with_entries) {
    std::optional<session> taken;
    {
        const std::lock_guard<std::mutex> held(state.mutex);
        catalog &                         entries = state.entries;
        const bool                        waits   = with_entries && !entries.counters.index_complete;
        if (waits) {
            entries.awaiting_delete.reserve(entries.awaiting_delete.size() +
                                            1); // may throw, so before the session is taken
        }
        taken = entries.sessions.take(id);
        if (taken && waits) {
            entries.awaiting_delete.push_back(std::move(*taken));
            return 0;
        }
    }
    return taken ? std::make_optional(state.unref(std::move(*taken), with_entries)) : std::nullopt;
}

std::optional<uint64_t> memory_store::remove_session(const std::string & id, bool with_entries) {
    const auto draft = self->remove(draft_name(id), with_entries);
    const auto bytes = self->remove(id, with_entries);
    return bytes ? std::make_optional(*bytes + draft.value_or(0)) : std::nullopt;
}

} // namespace atlas
