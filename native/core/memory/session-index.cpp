#include "session-index.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

namespace atlas::memory {

constexpr size_t AT_ONCE = 16; // references that one extend() drops, while it adds one

static double unix_time() {
    return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

static const char DRAFT = '\n';

std::string draft_name(const std::string & id) { return id + DRAFT; }

bool is_draft(const std::string & id) { return !id.empty() && id.back() == DRAFT; }

std::string without_draft(const std::string & id) { return id.substr(0, id.find(DRAFT)); }

void session_index::ref(const session & of, const digest & key, bool is_pinned) {
    ref_counts & now = entries[key];
    now.n_sessions++;
    now.n_pins += is_pinned;
    now.is_draft = of.is_draft;
    changed(key, now);
}

void session_index::unref(const digest & key, bool is_pinned) noexcept {
    const auto it = entries.find(key);
    it->second.n_sessions--;
    it->second.n_pins -= is_pinned;
    const ref_counts rest = it->second;
    if (rest.n_sessions == 0) {
        entries.erase(it);
    }
    changed(key, rest);
}

void session_index::push(session & of, const digest & key) {
    const bool is_pinned = of.is_pinned && of.n_pinned == of.chain.size();
    of.chain.push_back(key);
    try {
        ref(of, key, is_pinned);
    } catch (const std::bad_alloc &) {
        of.chain.pop_back();
        throw;
    }
    of.n_pinned += is_pinned;
    n_keys++;
}

void session_index::cut(session & of, size_t depth) {
    if (of.chain.size() > depth) {
        session rest;
        rest.chain.assign(of.chain.begin() + depth, of.chain.end());
        rest.n_pinned = of.n_pinned - std::min(of.n_pinned, depth);
        pending_unref.push_back(std::move(rest));
        n_keys -= of.chain.size() - depth;
        of.n_pinned = std::min(of.n_pinned, depth);
        of.chain.resize(depth);
    }
}

digest session_index::unref_last(session & taken) noexcept {
    const digest key       = taken.chain.back();
    const bool   is_pinned = taken.n_pinned == taken.chain.size();
    taken.chain.pop_back();
    taken.n_pinned -= is_pinned;
    unref(key, is_pinned);
    return key;
}

bool session_index::unref_pending(size_t max_entries) noexcept {
    for (; max_entries > 0 && !pending_unref.empty(); max_entries--) {
        unref_last(pending_unref.front());
        if (pending_unref.front().chain.empty()) {
            pending_unref.pop_front();
        }
    }
    return !pending_unref.empty();
}

void session_index::set_last_used(const std::string & id, session & of, double when) {
    auto place = idle.extract({of.last_used, id});
    if (!of.is_pinned) {
        if (!place) {
            idle.emplace(when, id);
        } else {
            place.value().first = when;
            idle.insert(std::move(place));
        }
    }
    of.last_used = when;
}

void session_index::note_change(session & of) noexcept {
    auto place  = by_version.extract(of.version);
    of.version  = ++last_version;
    place.key() = of.version;
    by_version.insert(std::move(place));
}

// The session, made where there is none.
session & session_index::make(const std::string & id) {
    const auto [it, is_new] = sessions.try_emplace(id);
    session & of            = it->second;
    if (is_new) {
        try {
            by_version.emplace(last_version + 1, id);
            of.version = ++last_version;
            set_last_used(id, of, 0);
            of.is_draft = is_draft(id);
            n_drafts += of.is_draft;
        } catch (const std::bad_alloc &) {
            by_version.erase(of.version);
            sessions.erase(it);
            throw;
        }
    }
    return of;
}

// Makes room for one more entry of a session, which may be new, by forgetting others. Sessions that were used after it
// are not forgotten for it; returns false where only such are left.
bool session_index::make_room(const std::string & id, double last_used) {
    while (n_keys >= limits.max_keys || (sessions.size() >= limits.max_sessions && !sessions.count(id))) {
        const auto victim = std::find_if(idle.begin(), idle.end(), [&](const auto & one) { return one.second != id; });
        n_dropped++;
        if (victim == idle.end() || victim->first > last_used) {
            return false;
        }
        const std::string name = victim->second;
        // before the session is taken: if this threw after that, its references would never be dropped
        pending_unref.emplace_back();
        try {
            pending_unref.back() = *take(name);
        } catch (const std::bad_alloc &) {
            pending_unref.pop_back();
            throw;
        }
        if (pending_unref.back().chain.empty()) {
            pending_unref.pop_back();
        }
    }
    return true;
}

void session_index::extend(const std::string & id, size_t depth, const digest & key, uint64_t n_tokens) {
    const double now = unix_time();
    const auto   it  = sessions.find(id);
    // entries before it are missing in the chain, so no lookup could reach this one
    if (depth > (it == sessions.end() ? 0 : it->second.chain.size())) {
        return;
    }
    const bool is_known = it != sessions.end() && depth < it->second.chain.size() && it->second.chain[depth] == key;
    if (!is_known && !make_room(id, now)) {
        return;
    }
    session & of = make(id);
    if (!is_known) {
        cut(of, depth);
        push(of, key);
    }
    of.n_tokens = n_tokens;
    set_last_used(id, of, now);
    note_change(of);
    unref_pending(AT_ONCE);
}

uint64_t session_index::restore(const std::string & id, const session & was) {
    if (sessions.count(id) || !make_room(id, was.last_used)) {
        return 0; // a session that is in use already is newer
    }
    session & of = make(id);
    of.n_tokens  = was.n_tokens;
    of.is_pinned = was.is_pinned;
    set_last_used(id, of, std::min(was.last_used, unix_time()));
    note_change(of);
    return of.version;
}

bool session_index::append(const std::string & id, uint64_t version, const digest * keys, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const auto it = sessions.find(id);
        if (it == sessions.end() || it->second.version != version || !make_room(id, it->second.last_used)) {
            return false;
        }
        push(it->second, keys[i]);
    }
    return true;
}

bool session_index::rename(const std::unordered_map<digest, digest, digest_hash> & keys, uint64_t & version,
                           size_t max_sessions) {
    const auto ids = changed_since(version, max_sessions);
    for (const std::string & id : ids) {
        session & of         = sessions.at(id);
        bool      is_changed = false;
        for (size_t i = 0; i < of.chain.size(); i++) {
            const auto renamed = keys.find(of.chain[i]);
            if (renamed != keys.end()) {
                const bool is_pinned = i < of.n_pinned;
                ref(of, renamed->second, is_pinned);
                unref(std::exchange(of.chain[i], renamed->second), is_pinned);
                is_changed = true;
            }
        }
        version = of.version;
        if (is_changed) {
            note_change(of);
        }
    }
    return !ids.empty();
}

void session_index::set_pinned(const std::string & id, bool is_pinned) {
    const auto it = sessions.find(id);
    if (it != sessions.end() && it->second.is_pinned != is_pinned) {
        if (!is_pinned) {
            idle.emplace(it->second.last_used, id);
        } else {
            idle.erase({it->second.last_used, id});
        }
        it->second.is_pinned = is_pinned;
        note_change(it->second);
    }
}

bool session_index::update_pin(const std::string & id, size_t max_entries) {
    const auto it = sessions.find(id);
    if (it == sessions.end()) {
        return false;
    }
    session & of = it->second;
    for (; max_entries > 0 && of.n_pinned != (of.is_pinned ? of.chain.size() : 0); max_entries--) {
        // pins from the first on and unpins from the last on, as an entry is pinned only if the one before it is
        const digest key = of.chain[of.is_pinned ? of.n_pinned++ : --of.n_pinned];
        ref(of, key, of.is_pinned);
        unref(key, !of.is_pinned);
    }
    return of.n_pinned != (of.is_pinned ? of.chain.size() : 0);
}

std::optional<session> session_index::take(const std::string & id) {
    const auto it = sessions.find(id);
    if (it == sessions.end()) {
        return std::nullopt;
    }
    idle.erase({it->second.last_used, id}); // first, as the copy of the name that it makes may throw
    session taken = std::move(it->second);
    n_keys -= taken.chain.size();
    n_drafts -= taken.is_draft;
    by_version.erase(taken.version);
    sessions.erase(it);
    return taken;
}

const session * session_index::find(const std::string & id) const {
    const auto it = sessions.find(id);
    return it == sessions.end() ? nullptr : &it->second;
}

// Looks from the end, where the entries are that may be superseded.
bool session_index::has(const std::string & id, const digest & key) const {
    const session * of = find(id);
    return of && std::find(of->chain.rbegin(), of->chain.rend(), key) != of->chain.rend();
}

std::vector<std::string> session_index::changed_since(uint64_t version, size_t max_sessions) const {
    std::vector<std::string> ids;
    for (auto it = by_version.upper_bound(version); it != by_version.end() && ids.size() < max_sessions; ++it) {
        ids.push_back(it->second);
    }
    return ids;
}

} // namespace atlas::memory
