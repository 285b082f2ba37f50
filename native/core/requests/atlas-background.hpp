// Responses that the server makes by itself, in the background: which are made now and which wait, and what becomes of those
// that are cancelled or that the end of the server meets. Knows no model: what makes a response is given. Touches its own locks
// only; HTTP threads call it, and each response that is made has a thread of its own.
#pragma once

#include "atlas-streamed-events.hpp"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

namespace atlas {

// How a response ended: with an answer, which may be cut off; with an error; or as somebody wanted it to.
enum class background_end { completed, failed, cancelled };

constexpr const char * BACKGROUND_END_NAMES[] = {"completed", "failed", "cancelled"};

constexpr size_t N_BACKGROUND_ENDS = sizeof(BACKGROUND_END_NAMES) / sizeof(BACKGROUND_END_NAMES[0]);

// What all responses in the background may take together.
constexpr size_t MAX_BACKGROUND_EVENTS  = 64 * 1024 * 1024; // bytes of events, of those that have ended too
constexpr size_t MAX_BACKGROUND_WAITING = 256 * 1024 * 1024; // bytes of requests that wait
constexpr size_t MAX_BACKGROUND_ENDED   = 1000; // that have ended, and whose events are kept

// One response. Any thread, unless it says otherwise.
class background_response {
  public:
    std::string tenant;
    std::string id;
    bool        is_streamed = false; // it has events
    size_t      bytes       = 0; // of the request
    std::string queued, in_progress; // the response as JSON, while it is not there

    streamed_events events;

    // Whether nobody wants its answer any more.
    bool is_over() const { return why_over != over::no; }
    bool is_cancelled() const { return why_over == over::cancelled; }

    // The answer is there and is about to be kept: false where nobody wants it. After that nobody can cancel it.
    bool claim();
    bool is_claimed() const;

    // How it ended, as JSON, where that could not be kept elsewhere. For the thread that makes it.
    void hold(std::string response);

    // The response as JSON; empty where it has ended, and is kept elsewhere.
    std::string shown() const;

  private:
    friend class background_responses;
    enum class over { no, cancelled, stopped };
    enum class state { waiting, running, ended };

    mutable std::mutex mutex;
    state              now = state::waiting;
    std::atomic<over>  why_over{over::no};
    bool               claimed = false;
    std::string        held;

    std::function<background_end(background_response &)> make;

    void finish(over why);
    void set(state to);
};

struct background_limits {
    int64_t running = 1, waiting = 0;
};

struct background_stats {
    int64_t  running = 0, waiting = 0, ended_kept = 0; // ended_kept: whose events are there
    size_t   event_bytes              = 0;
    uint64_t refused                  = 0;
    uint64_t ended[N_BACKGROUND_ENDS] = {};
};

class background_responses {
  public:
    using clock  = std::chrono::steady_clock;
    using shared = std::shared_ptr<background_response>;
    // Makes a response, or does what is to be done where is_over(), and keeps how it ended. Must not throw.
    using maker = std::function<background_end(background_response &)>;

    // limits: asked whenever a response may begin.
    explicit background_responses(std::function<background_limits()> limits) : limits(std::move(limits)) {}

    // Closes it, and waits for as long as it takes.
    ~background_responses();

    // Takes a place among those that wait. Throws atlas::error: 429 where there is none, 503 at the end of the server.
    void accept(const shared & response);

    // It is durable, and made once it is its turn.
    void begin(const shared & response, maker make);

    // It could not be made durable: its place is free.
    void withdraw(const shared & response);

    // The limits may be others now.
    void look();

    // Adds an event, and lets others go where all together take too much: first those of what ended longest ago.
    void add_event(background_response & to, std::string event);

    // One that has not ended, or has something to tell still; nullptr: there is none of this tenant.
    shared find(const std::string & tenant, const std::string & id);

    // Has it end, unless its answer is being kept already, and waits for that: false where it took longer.
    bool cancel(const shared & response, clock::duration patience);

    // What it has to tell goes, once it has ended.
    void forget(const shared & response);

    // Lets no more begin, has all end as stopped, those that wait too, and waits for them: false where it took longer.
    bool close(clock::duration patience);

    background_stats stats();

  private:
    using name = std::pair<std::string, std::string>;

    const std::function<background_limits()> limits;

    std::mutex              mutex;
    std::condition_variable changed;
    std::map<name, shared>  all;
    std::deque<shared>      queue; // those that have begun to wait
    std::deque<shared>      told; // that have ended, the oldest first
    int64_t                 n_running = 0, n_waiting = 0, n_making = 0;
    size_t                  waiting_bytes = 0;
    std::atomic<size_t>     event_bytes{0};
    bool                    is_closed = false;
    background_stats        counted;

    void start_due(); // with the mutex
    void leave_queue(const background_response & response); // with the mutex
    void make(const shared & response); // without
    void trim();
    bool drop_oldest(); // with the mutex
};

} // namespace atlas
