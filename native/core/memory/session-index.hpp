// Which entries belong to which session, and how many sessions and pins refer to an entry. In RAM only, no locks; the
// store's mutex guards it, and the token loop extends sessions here.
//
// References are dropped, and pins take effect, in steps, so that nobody holds the mutex for long.
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

// The state of what drafts tokens in a session is a chain of its own, and here a session of its own, whose name no other has.
std::string draft_name(const std::string & id);
bool        is_draft(const std::string & id);
std::string without_draft(const std::string & id); // of a session, or of its draft: the session

// A named conversation: its blocks, in order, then its tail and the checkpoint at its end.
struct session {
    std::vector<digest> chain;
    size_t              n_pinned  = 0; // so many of its first entries have its pin; update_pin() makes it all or none
    uint64_t            n_tokens  = 0;
    double              last_used = 0; // seconds since 1970
    uint64_t            version   = 0; // of the change that was last made to it
    bool                is_pinned = false;
    bool                is_draft  = false;
};

// How many references an entry has: for them it is kept longer than its priority says.
struct ref_counts {
    uint32_t n_sessions = 0; // live sessions that it belongs to
    uint32_t n_pins     = 0; // of these, pinned by a user
    bool     is_draft   = false; // they are of drafts
};

struct session_limits {
    size_t max_sessions = 65536;
    size_t max_keys     = 1 << 20; // entries of all sessions together, shared ones once for each
};

// Where a member throws std::bad_alloc, it has not done all that it should, but the index is whole. Dropping references
// needs no memory.
class session_index {
  public:
    // Called for an entry whose references have changed.
    using on_change = std::function<void(const digest & key, const ref_counts & now)>;

    explicit session_index(on_change changed, session_limits limits = {})
        : changed(std::move(changed)), limits(limits) {}

    // Makes `key` the entry at `depth` of the session's chain, and cuts what is behind it off; where the key is there
    // already, the chain stays as it is. Makes the session where there is none. At a limit, the sessions that are idle
    // longest and not pinned are forgotten.
    void extend(const std::string & id, size_t depth, const digest & key, uint64_t n_tokens);

    // Makes a session of the last run again, without its entries, unless there is one of that name or a limit is in the
    // way. Returns its version, or 0.
    uint64_t restore(const std::string & id, const session & was);
    // Adds entries at the end of its chain. Returns false where the session changed since that version.
    bool append(const std::string & id, uint64_t version, const digest * keys, size_t n_keys);

    // Replaces keys of chains by others, in the first max_sessions that changed after `version`, which is set to the
    // version of the last of them. Returns false once there are none. A session that this changes comes once more.
    bool rename(const std::unordered_map<digest, digest, digest_hash> & keys, uint64_t & version, size_t max_sessions);

    // update_pin() then pins or unpins max_entries of its entries at a time; it returns false once all are done.
    void set_pinned(const std::string & id, bool is_pinned);
    bool update_pin(const std::string & id, size_t max_entries);

    // Forgets a session. Its references stay until unref_last() was called for each of its entries.
    std::optional<session> take(const std::string & id);
    digest                 unref_last(session & taken) noexcept;

    // Drops references of sessions that were forgotten at a limit, or whose chains were cut. Returns false once there
    // are none.
    bool unref_pending(size_t max_entries) noexcept;

    const session *                                             find(const std::string & id) const;
    bool                                                        has(const std::string & id, const digest & key) const;
    size_t                                                      size() const { return sessions.size() - n_drafts; }
    const std::unordered_map<digest, ref_counts, digest_hash> & held() const { return entries; }

    // How often a session was forgotten, or not restored, because of a limit.
    uint64_t dropped() const { return n_dropped; }

    // At most max_sessions that changed after a version, the earliest change first.
    std::vector<std::string> changed_since(uint64_t version, size_t max_sessions) const;

  private:
    friend struct catalog_audit;

    const on_change                                     changed;
    const session_limits                                limits;
    std::map<std::string, session>                      sessions;
    std::map<uint64_t, std::string>                     by_version;
    std::set<std::pair<double, std::string>>            idle; // sessions that are not pinned, by their last use
    std::unordered_map<digest, ref_counts, digest_hash> entries;
    std::deque<session> pending_unref; // sessions, or ends of chains, whose references are left
    size_t              n_keys       = 0; // in the chains of `sessions`
    size_t              n_drafts     = 0; // of `sessions`
    uint64_t            last_version = 0;
    uint64_t            n_dropped    = 0;

    void      ref(const session & of, const digest & key, bool is_pinned);
    void      unref(const digest & key, bool is_pinned) noexcept;
    void      push(session & of, const digest & key);
    void      cut(session & of, size_t depth);
    void      set_last_used(const std::string & id, session & of, double when);
    void      note_change(session & of) noexcept;
    session & make(const std::string & id);
    bool      make_room(const std::string & id, double last_used);
};

} // namespace atlas::memory
