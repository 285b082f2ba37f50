// Calls of plugins' hooks that whoever waits for them can leave. An HTTP thread puts a call here and waits until its deadline,
// no longer; workers, which are threads of Python, take it and answer. What a call is made of belongs to this object, so a
// worker may read it for as long as it likes, and answer when nobody waits any more.
//
// Touches its own lock only. HTTP threads and workers call it; the token loop never does.
#pragma once

#include "atlas-hook-table.hpp"
#include "atlas-http.hpp"

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace atlas {

using hook_text = std::shared_ptr<const std::string>;

// What became of what was asked about.
struct hook_outcome {
    hook_text                    changed; // the body as plugins left it; nullptr: none changed it
    std::optional<http_response> answer; // a plugin answers in the model's place
};

// How a worker gets on with a call. The numbers are those of atlas-abi.h.
enum class hook_step : int32_t {
    begin   = ATLAS_STEP_BEGIN,
    pass    = ATLAS_STEP_PASS,
    modify  = ATLAS_STEP_MODIFY,
    reject  = ATLAS_STEP_REJECT,
    respond = ATLAS_STEP_RESPOND,
    fail    = ATLAS_STEP_FAIL,
};

// What a worker gets. The texts are borrowed until it asks for the next call.
struct hook_work {
    uint64_t         number  = 0; // never 0
    uint64_t         table   = 0; // hook_table::number
    hook             what    = hook::request;
    uint64_t         request = 0; // of which it is
    std::string_view head, body;
    size_t           payload = 0; // bytes that read() copies
};

// What came of asking one implementation alone.
struct hook_answer {
    enum class result : uint8_t {
        answered,
        failed, // `response` has one line that says why
        late, // Python had begun with it
        unserved, // Python had not
        off, // it missed too many deadlines
        closed, // the server ends
    } how = result::off;
    http_response response;
};

struct hook_limits {
    int max_in_a_row = 5; // after so many missed deadlines of a hook in a row it is off
    int max_workers  = 16; // that are not held up by a call that is over its deadline
};

// One for a server.
class hook_calls {
  public:
    using clock = std::chrono::steady_clock;

    hook_calls()                               = default;
    hook_calls(const hook_calls &)             = delete;
    hook_calls & operator=(const hook_calls &) = delete;

    // Whether any plugin has the hook. One read of an atomic: any thread, the token loop too.
    bool has(hook what) const {
        return (hooked.load(std::memory_order_relaxed) >> static_cast<unsigned>(what) & 1) != 0;
    }
    bool has_any() const { return hooked.load(std::memory_order_relaxed) != 0; }

    // The tallies of hooks that were there before go on.
    void set_table(hook_table && next);
    void set_limits(const hook_limits & next);

    std::shared_ptr<const hook_table> table() const;

    // The numbers of the tables that somebody holds, the oldest first.
    std::vector<uint64_t> tables_in_use() const;

    // A number for a request.
    uint64_t new_request() { return ++last_request; }

    // Asks implementations one after the other, each until its deadline; what one changed is the next one's body. Throws
    // atlas::error where one refuses, and 503 where one that fails closed does not answer. request: a number, the same for all
    // calls of a request. head: JSON, about the request.
    hook_outcome ask(std::shared_ptr<const hook_table> table, hook what, uint64_t request, hook_text head,
                     hook_text body);

    // Asks the implementation at a position of the table, for no longer than its deadline nor this one. What belongs to
    // `payload` may be read until it returns. Throws nothing but std::bad_alloc.
    hook_answer ask_one(std::shared_ptr<const hook_table> table, hook what, size_t at, hook_text head, hook_text body,
                        const std::vector<std::string_view> & payload, clock::time_point until);

    // Has the implementations told, some time; nobody waits. Where MAX_TOLD wait already it is dropped, and counted.
    void tell(std::shared_ptr<const hook_table> table, hook what, uint64_t request, hook_text head, hook_text body);

    uint64_t dropped() const { return n_dropped; }

    // Turns a plugin's hooks on again. Returns whether any was off.
    bool turn_on(const std::string & plugin);

    // Every hook of every plugin that there was since the start.
    struct counted {
        std::string                 plugin;
        hook                        what;
        std::shared_ptr<hook_tally> tally;
        std::string                 tier = {}; // its name, of a tier
    };
    std::vector<counted> tallies() const;

    // The workers' side. worker_wanted() waits until another worker is needed; false: never again. has_failed: the one that was
    // wanted last could not be made.
    bool worker_wanted(bool has_failed);

    // Waits for a call; false: the worker is to end. previous: the call that this worker had before; 0: it is new.
    bool take(uint64_t previous, hook_work & work);

    // Tells how the call goes on: `begin` once, then what became of each implementation. `with`: the changed body, the answer,
    // or the message of a refusal with its status. Returns which implementation is next, of those of the hook; nothing: the
    // worker is to leave the call, since it is over or nobody waits for it any more.
    std::optional<size_t> step(uint64_t number, hook_step what, http_response && with);

    // Copies all of a call's payload, without a lock that others wait for. Returns false where the call is over.
    bool read(uint64_t number, char * to, size_t size);

    // Waits until everybody has been told, but for those that are over their deadline. Returns whether it came to that within
    // timeout_s seconds.
    bool drain(double timeout_s);

    // From now on nobody is asked or told, and all workers end.
    void close();

    static constexpr size_t MAX_TOLD    = 1024;
    static constexpr size_t MAX_WORKERS = 256; // in all

  private:
    struct call;
    class payload;
    using call_ptr = std::shared_ptr<call>;

    mutable std::mutex                mutex; // guards all below that is not atomic
    std::shared_ptr<const hook_table> current = std::make_shared<hook_table>();
    std::vector<counted>              all_tallies;

    std::vector<std::weak_ptr<const hook_table>> all_tables; // but for some that nobody holds
    hook_limits                                  limits;
    std::deque<call_ptr>                         queue;
    std::map<uint64_t, call_ptr>                 taken; // until the worker asks for the next
    size_t                                       n_idle = 0, n_workers = 0, n_starting = 0, n_told = 0;
    uint64_t                                     last_number = 0;
    bool                                         is_closed   = false;
    std::condition_variable                      work_there, workers_wanted, drained;

    std::atomic<uint32_t> hooked{0}; // a bit for each hook
    std::atomic<uint64_t> n_dropped{0};
    std::atomic<uint64_t> last_request{0};

    // All called with the lock held.
    std::shared_ptr<hook_tally> tally_of(const hook_implementation & of, hook what);
    bool                        needs_worker(clock::time_point now) const;
    // When the next of those that nobody waits for gets over its deadline; after now.
    clock::time_point     next_overdue(clock::time_point now) const;
    void                  push(const call_ptr & what);
    void                  wait(std::unique_lock<std::mutex> & held, call & what);
    void                  leave(call & what, clock::time_point now);
    void                  miss(const hook_implementation & by, clock::time_point began, clock::time_point now);
    std::optional<size_t> settle(call & what, hook_step how, http_response && with);
};

} // namespace atlas
