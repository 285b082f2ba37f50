// One call of a hook: which implementation is asked now, and how far the worker that has it came. Guarded by the lock of
// the hook_calls that it belongs to.
#pragma once

#include "atlas-error.hpp"
#include "atlas-hook-calls.hpp"

#include <algorithm>
#include <cstring>

namespace atlas {

// Bytes of whoever asks. Any thread.
class hook_calls::payload {
  public:
    explicit payload(const std::vector<std::string_view> & pieces) : pieces(pieces) {
        for (const auto piece : pieces) {
            n_bytes += piece.size();
        }
    }

    size_t size() const { return n_bytes; }

    // Copies all. Returns false where it was taken away meanwhile.
    bool read(char * to) const {
        constexpr size_t AT_ONCE = 1 << 20; // for which take_away() may have to wait
        size_t           piece = 0, done = 0;
        while (true) {
            const std::lock_guard<std::mutex> held(mutex);
            if (is_gone) {
                return false;
            }
            while (piece < pieces.size() && done == pieces[piece].size()) {
                piece++;
                done = 0;
            }
            if (piece == pieces.size()) {
                return true;
            }
            const size_t n = std::min(AT_ONCE, pieces[piece].size() - done);
            std::memcpy(to, pieces[piece].data() + done, n);
            to += n;
            done += n;
        }
    }

    // From now on nobody reads what it refers to.
    void take_away() {
        const std::lock_guard<std::mutex> held(mutex);
        is_gone = true;
    }

  private:
    mutable std::mutex                  mutex;
    const std::vector<std::string_view> pieces;
    size_t                              n_bytes = 0;
    bool                                is_gone = false;
};

struct hook_calls::call {
    uint64_t                          number = 0, request = 0;
    std::shared_ptr<const hook_table> table;
    hook                              what = hook::request;
    hook_text                         head, body;
    bool                              is_told = false; // nobody waits for it

    bool              has_begun = false; // a worker is in Python with it
    bool              is_left   = false; // whoever waited goes on without it
    bool              is_done   = false;
    size_t            at        = 0; // the implementation that is asked now
    size_t            end       = SIZE_MAX; // none from this one on is asked
    clock::time_point asked, begun; // since when that is waited for, and at work
    clock::time_point woken; // when who waits looks at its deadline next

    std::shared_ptr<hook_tally> left; // of the implementation that was at work when it was left

    std::optional<clock::time_point>     until; // when whoever waits leaves at the latest
    std::shared_ptr<hook_calls::payload> bytes;
    hook_answer::result                  how = hook_answer::result::off;

    hook_outcome            outcome;
    std::optional<error>    refusal;
    std::condition_variable changed;

    const std::vector<hook_implementation> & asks() const { return table->of(what); }
    const hook_implementation &              by() const { return asks()[at]; }

    // Goes on to the next implementation that is not off, where there is one that may be asked.
    void go_to(size_t next) {
        const size_t n = std::min(end, asks().size());
        for (at = next; at < n && by().tally->is_off; at++) {
            if (by().fails_closed) {
                refusal = error(503, "plugin '" + by().plugin + "' must allow this request and is off: see " +
                                         "GET /v1/atlas/plugins");
                break;
            }
        }
        is_done = refusal || at >= n;
    }

    // The present implementation has no answer.
    void do_without(const char * why) {
        if (by().fails_closed) {
            refusal = error(503, "plugin '" + by().plugin + "' must allow this request and " + why);
            is_done = true;
        } else {
            go_to(at + 1);
        }
    }

    // When whoever waits leaves it.
    clock::time_point leaves_at() const {
        const auto usual = asked + by().deadline;
        return until ? std::min(usual, *until) : usual;
    }

    bool is_overdue(clock::time_point now) const {
        return is_left || (is_told && has_begun && !is_done && now - begun > by().deadline);
    }
};

} // namespace atlas
