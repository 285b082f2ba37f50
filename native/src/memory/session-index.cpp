#include "session-index.hpp"

#include <chrono>

namespace atlas::memory {

static double unix_time() {
    return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

void session_index::hold(const digest & key, bool is_pinned) {
    holds & of = entries[key];
    of.n_sessions++;
    of.n_pins += is_pinned;
    changed(key, of);
}

void session_index::let_go(const digest & key, bool is_pinned) {
    const auto it = entries.find(key);
    it->second.n_sessions--;
    it->second.n_pins -= is_pinned;
    const holds rest = it->second;
    if (rest.n_sessions == 0) {
        entries.erase(it);
    }
    changed(key, rest);
}

void session_index::truncate(session & of, size_t depth) {
    while (of.chain.size() > depth) {
        const digest key = of.chain.back();
        of.chain.pop_back();
        let_go(key, of.is_pinned);
    }
}

void session_index::note_change(const std::string & id, session & of) {
    by_version.erase(of.version);
    of.version = ++last_version;
    by_version.emplace(of.version, id);
}

void session_index::extend(const std::string & id, size_t depth, const digest & key, uint64_t n_tokens) {
    auto it = sessions.find(id);
    if (it == sessions.end()) {
        if (depth > 0 || sessions.size() >= MAX_SESSIONS) {
            return;
        }
        it = sessions.emplace(id, session()).first;
    }
    session & of = it->second;
    if (depth > of.chain.size()) {
        return; // its beginning was not published, so that nothing behind could be found
    }
    if (depth == of.chain.size() || of.chain[depth] != key) {
        truncate(of, depth);
        of.chain.push_back(key);
        hold(key, of.is_pinned);
    }
    of.n_tokens  = n_tokens;
    of.last_used = unix_time();
    note_change(id, of);
}

void session_index::restore(const std::string & id, session from) {
    if (sessions.count(id) || sessions.size() >= MAX_SESSIONS) {
        return; // it is in use already: what is there is newer
    }
    session & of = sessions[id];
    of           = std::move(from);
    of.version   = 0;
    if (of.is_pinned) {
        pinned_ids.insert(id);
    }
    for (const digest & key : of.chain) {
        hold(key, of.is_pinned);
    }
    note_change(id, of);
}

bool session_index::set_pinned(const std::string & id, bool is_pinned) {
    const auto it = sessions.find(id);
    if (it == sessions.end()) {
        return false;
    }
    session & of = it->second;
    if (of.is_pinned != is_pinned) {
        for (const digest & key : of.chain) {
            hold(key, is_pinned);
            let_go(key, of.is_pinned);
        }
        of.is_pinned = is_pinned;
        if (is_pinned) {
            pinned_ids.insert(id);
        } else {
            pinned_ids.erase(id);
        }
        note_change(id, of);
    }
    return true;
}

std::optional<session> session_index::remove(const std::string & id) {
    const auto it = sessions.find(id);
    if (it == sessions.end()) {
        return std::nullopt;
    }
    session removed = it->second;
    truncate(it->second, 0);
    by_version.erase(it->second.version);
    pinned_ids.erase(id);
    sessions.erase(it);
    return removed;
}

const session * session_index::find(const std::string & id) const {
    const auto it = sessions.find(id);
    return it == sessions.end() ? nullptr : &it->second;
}

std::vector<std::string> session_index::changed_since(uint64_t version, size_t max_sessions) const {
    std::vector<std::string> ids;
    for (auto it = by_version.upper_bound(version); it != by_version.end() && ids.size() < max_sessions; ++it) {
        ids.push_back(it->second);
    }
    return ids;
}

} // namespace atlas::memory
