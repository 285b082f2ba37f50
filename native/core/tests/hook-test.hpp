// Stands in for Python in the tests of hooks' calls: threads that ask for work, as atlas_plugin's do.
#pragma once

#include "atlas-error.hpp"
#include "atlas-hook-calls.hpp"
#include "cases.hpp"

#include <pthread.h>
#include <time.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace hook_test {

using namespace std::chrono_literals;
using atlas::hook;
using atlas::hook_calls;
using atlas::hook_step;
using atlas::http_response;

constexpr auto LONG  = 60000ms; // never waited for
constexpr auto SHORT = 20ms; // waited for to its end

inline http_response saying(const std::string & text, int status = 200) {
    http_response response;
    response.status = status;
    response.body   = text;
    return response;
}

inline atlas::hook_text text(const std::string & text) { return std::make_shared<const std::string>(text); }

// What a plugin does when it is asked: by its position in the table and the body.
struct verdict {
    hook_step     step;
    http_response with;
};
using plugin_function = std::function<verdict(size_t position, const std::string & body)>;

inline std::chrono::nanoseconds cpu_time_of(pthread_t thread) {
    clockid_t clock;
    timespec  time;
    CHECK(pthread_getcpuclockid(thread, &clock) == 0 && clock_gettime(clock, &time) == 0);
    return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

// Python, as the server sees it: a thread that makes workers, as many as are wanted.
class workers {
  public:
    workers(hook_calls & calls, plugin_function plugins) : calls(calls), plugins(std::move(plugins)) {
        maker = std::thread([this] {
            while (this->calls.worker_wanted(false)) {
                made++;
                all.emplace_back([this] { work(); });
            }
        });
    }
    ~workers() {
        calls.close();
        maker.join();
        for (auto & each : all) {
            each.join();
        }
    }

    std::atomic<int> made{0};

    // CPU time of the thread that makes workers.
    std::chrono::nanoseconds maker_time() { return cpu_time_of(maker.native_handle()); }

  private:
    void work() {
        atlas::hook_work work;
        for (uint64_t previous = 0; calls.take(previous, work); previous = work.number) {
            std::string body(work.body);
            auto        next = calls.step(work.number, hook_step::begin, {});
            while (next) {
                auto [step, with] = plugins(*next, body);
                body              = step == hook_step::modify ? with.body : body;
                next              = calls.step(work.number, step, std::move(with));
            }
        }
    }

    hook_calls &             calls;
    const plugin_function    plugins;
    std::thread              maker;
    std::vector<std::thread> all;
};

struct implementation {
    const char *              plugin;
    std::chrono::milliseconds deadline;
    bool                      fails_closed = false;
};

// Stands between a hook that hangs and the end of a case.
class gate {
  public:
    void open() { opened.set_value(); }
    void wait() const { is_open.wait(); }

  private:
    std::promise<void>       opened;
    std::shared_future<void> is_open = opened.get_future().share();
};

inline void set_table(hook_calls & calls, const std::vector<implementation> & of_request, hook what = hook::request) {
    atlas::hook_table table;
    table.number = 1;
    for (const auto & each : of_request) {
        atlas::hook_implementation added;
        added.plugin       = each.plugin;
        added.deadline     = each.deadline;
        added.fails_closed = each.fails_closed;
        table.by_hook[static_cast<size_t>(what)].push_back(std::move(added));
    }
    calls.set_table(std::move(table));
}

inline atlas::hook_outcome ask(hook_calls & calls, const std::string & body = "x") {
    return calls.ask(calls.table(), hook::request, 1, text("{}"), text(body));
}

inline int refused_with(hook_calls & calls) {
    try {
        ask(calls);
        return 0;
    } catch (const atlas::error & error) {
        return error.code;
    }
}

inline const atlas::hook_tally & tally_of(const hook_calls & calls, const std::string & plugin) {
    for (const auto & each : calls.tallies()) {
        if (each.plugin == plugin) {
            return *each.tally;
        }
    }
    throw std::runtime_error("no tally of " + plugin);
}

} // namespace hook_test
