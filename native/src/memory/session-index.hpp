// Which entries belong to which session, and which of them are kept longer for it. In memory only, no locks.
#pragma once

#include "digest.hpp"

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

namespace atlas::memory {

// A named conversation: its blocks, in order, then its tail and what cannot be rolled back at its end.
struct session {
    std::vector<digest> chain;
    uint64_t            n_tokens  = 0;
    double              last_used = 0; // seconds since 1970
    uint64_t            version   = 0; // of the change that was last made to it
    bool                is_pinned = false;
};

// Why an entry is kept longer than its priority says.
struct holds {
    uint32_t n_sessions = 0; // live sessions that it belongs to
    uint32_t n_pins     = 0; // of these, pinned by a user
};

class session_index {
  public:
    // Tells of an entry whose holds have changed.
    using on_change = std::function<void(const digest & key, const holds & now)>;

    explicit session_index(on_change changed) : changed(std::move(changed)) {}

    // Makes `key` the entry at `depth` of the session's chain, which ends there unless the key was that already. A session
    // that is new is made, unless there are MAX_SESSIONS.
    void extend(const std::string & id, size_t depth, const digest & key, uint64_t n_tokens);

    void restore(const std::string & id, session from);
    bool set_pinned(const std::string & id, bool is_pinned);

    // Lets go of all entries of a session and forgets it.
    std::optional<session> remove(const std::string & id);

    const session *                                        find(const std::string & id) const;
    size_t                                                 size() const { return sessions.size(); }
    const std::set<std::string> &                          pinned() const { return pinned_ids; }
    const std::unordered_map<digest, holds, digest_hash> & held() const { return entries; }

    // At most max_sessions that changed after a version, the earliest change first.
    std::vector<std::string> changed_since(uint64_t version, size_t max_sessions) const;

    uint64_t version() const { return last_version; }

  private:
    static constexpr size_t MAX_SESSIONS = 65536;

    const on_change                                changed;
    std::map<std::string, session>                 sessions;
    std::map<uint64_t, std::string>                by_version;
    std::set<std::string>                          pinned_ids;
    std::unordered_map<digest, holds, digest_hash> entries;
    uint64_t                                       last_version = 0;

    void hold(const digest & key, bool is_pinned);
    void let_go(const digest & key, bool is_pinned);
    void truncate(session & of, size_t depth);
    void note_change(const std::string & id, session & of);
};

} // namespace atlas::memory
