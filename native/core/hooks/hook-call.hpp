// One call of a hook: which implementation is asked now, and how far the worker that has it came. Guarded by the lock of
// the hook_calls that it belongs to.
#pragma once

#include "atlas-error.hpp"
#include "atlas-hook-calls.hpp"

namespace atlas {

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
    clock::time_point asked, begun; // since when that is waited for, and at work
    clock::time_point woken; // when who waits looks at its deadline next

    std::shared_ptr<hook_tally> left; // of the implementation that was at work when it was left

    hook_outcome            outcome;
    std::optional<error>    refusal;
    std::condition_variable changed;

    const std::vector<hook_implementation> & asks() const { return table->of(what); }
    const hook_implementation &              by() const { return asks()[at]; }

    // Goes on to the next implementation that is not off, where there is one that may be asked.
    void go_to(size_t next) {
        for (at = next; at < asks().size() && by().tally->is_off; at++) {
            if (by().fails_closed) {
                refusal = error(503, "plugin '" + by().plugin + "' must allow this request and is off: see " +
                                         "GET /v1/atlas/plugins");
                break;
            }
        }
        is_done = refusal || at == asks().size();
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

    bool is_overdue(clock::time_point now) const {
        return is_left || (is_told && has_begun && !is_done && now - begun > by().deadline);
    }
};

} // namespace atlas
