// Which entries belong to which session, and which of them are kept longer for it. In memory only, no locks.
//
// Whoever holds the store's lock does little at a time: what a session lets go of, and a pin, take effect in steps.
#pragma once

#include "digest.hpp"

#include <deque>
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
    size_t              n_pinned  = 0; // so many of its first entries have its pin; soon all of them, or none
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

struct session_limits {
    size_t max_sessions = 65536;
    size_t max_keys     = 1 << 20; // entries of all sessions together, shared ones once for each
};

// Where a member throws std::bad_alloc, no more than what it was to do is missing. What only lets go needs no memory.
class session_index {
  public:
    // Tells of an entry whose holds have changed.
    using on_change = std::function<void(const digest & key, const holds & now)>;

    explicit session_index(on_change changed, session_limits limits = {})
        : changed(std::move(changed)), limits(limits) {}

    // Makes `key` the entry at `depth` of the session's chain, which ends there unless the key was that already. A session
    // that is new is made. At a limit the sessions that are idle longest and not pinned go.
    void extend(const std::string & id, size_t depth, const digest & key, uint64_t n_tokens);

    // Makes a session without entries as it was, unless there is one or a limit is in the way. Returns its version, or 0.
    uint64_t restore(const std::string & id, const session & was);
    // Adds entries behind those that it has. Returns false where it changed since that version.
    bool append(const std::string & id, uint64_t version, const digest * keys, size_t n_keys);

    // Puts other keys in the place of these, in the max_sessions that changed first after a version, which becomes that of
    // the last of them. Returns false once there are none; a session that was changed by it comes once more.
    bool rename(const std::unordered_map<digest, digest, digest_hash> & keys, uint64_t & version, size_t max_sessions);

    // settle_pin() then gives that effect, to so many entries at a time; it returns false once there is nothing to do.
    void set_pinned(const std::string & id, bool is_pinned);
    bool settle_pin(const std::string & id, size_t max_entries);

    // Forgets a session. What it had is held until let_go_last() was called for each of its entries.
    std::optional<session> take(const std::string & id);
    digest                 let_go_last(session & taken) noexcept;

    // Lets go of entries of sessions that went at a limit, or were cut. Returns false once there are none.
    bool let_go_departed(size_t max_entries) noexcept;

    const session *                                        find(const std::string & id) const;
    bool                                                   has(const std::string & id, const digest & key) const;
    size_t                                                 size() const { return sessions.size(); }
    const std::unordered_map<digest, holds, digest_hash> & held() const { return entries; }

    // How often a session went, or was not taken, because of a limit.
    uint64_t dropped() const { return n_dropped; }

    // At most max_sessions that changed after a version, the earliest change first.
    std::vector<std::string> changed_since(uint64_t version, size_t max_sessions) const;

  private:
    friend struct catalog_audit;

    const on_change                                changed;
    const session_limits                           limits;
    std::map<std::string, session>                 sessions;
    std::map<uint64_t, std::string>                by_version;
    std::set<std::pair<double, std::string>>       idle; // those that are not pinned, by their last use
    std::unordered_map<digest, holds, digest_hash> entries;
    std::deque<session>                            departed; // with what is still held
    size_t                                         n_keys       = 0; // without those of the departed
    uint64_t                                       last_version = 0;
    uint64_t                                       n_dropped    = 0;

    void      hold(const digest & key, bool is_pinned);
    void      let_go(const digest & key, bool is_pinned) noexcept;
    void      push(session & of, const digest & key);
    void      cut(session & of, size_t depth);
    void      set_last_used(const std::string & id, session & of, double when);
    void      note_change(session & of) noexcept;
    session & make(const std::string & id);
    bool      make_room(const std::string & id, double last_used);
};

} // namespace atlas::memory
