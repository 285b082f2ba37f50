// The end of the server: signals, the requests that are open then, and the process.
#include "atlas-error.hpp"
#include "atlas-llama-server.h"
#include "atlas-log.hpp"
#include "atlas-memory-setup.h"
#include "atlas-request-admission.hpp"
#include "atlas-server-state.h"
#include "atlas-slots.h"
#include "log.h"
#include "server-task.h"

#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>

// Ends the process without waiting for anything. What had to be made durable is; a thread that is inside Python or waits
// for a client cannot be joined. A server that nobody asked to end has failed to start.
[[noreturn]] static void end_process(const atlas_ending & ending, const char * why) {
    // The log gets a moment and is not waited for: who reads it may have stopped, and two threads must not flush it.
    std::thread([why] { atlas::log(atlas::LogLevel::WARN, why); }).detach();
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    _exit(ending.is_requested ? 0 : 1);
}

static void wait_for_shutdown_timeout(const atlas::runtime & runtime) {
    std::this_thread::sleep_for(std::chrono::duration<double>(runtime.config()->shutdown_timeout_s));
}

static const char * const OPEN_REQUESTS = "ending although requests are still open";

void atlas_end_without_destructors() {
    on_exit(
        [](int status, void *) {
            common_log_flush(common_log_main());
            std::fflush(stdout);
            _exit(status);
        },
        nullptr);
}

void atlas_at_end(std::function<void()> write_back) { atlas_state().ending.write_back = std::move(write_back); }

void atlas_end_loop() {
    if (const auto write_back = std::exchange(atlas_state().ending.write_back, nullptr)) {
        write_back();
    }
    if (atlas_memory_active()) {
        atlas_loaded_memory()->model.stop_proving(); // the model is unloaded next
    }
}

void atlas_server::stop() {
    auto & state  = atlas_state();
    auto & ending = state.ending;
    if (!state.runtime) {
        return;
    }
    atlas_end_loop();
    ending.has_begun = true;
    if (!state.runtime->stop()) {
        end_process(ending, "ending although a call into Python has not come to its end");
    }
    std::thread([&state] {
        wait_for_shutdown_timeout(*state.runtime);
        end_process(state.ending, OPEN_REQUESTS);
    }).detach();
    // Upstream cuts streams when it stops the HTTP server, which it does next: they get their last event before.
    while (state.runtime->gate().open() > 0) {
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    atlas_end_without_destructors(); // once more, to come before the destructors of what was made since the start
}

static const char * const SHUTTING_DOWN = "the server is shutting down";

void atlas_refuse_at_end(bool running) {
    if (!running) {
        throw atlas::error(503, SHUTTING_DOWN);
    }
}

std::unique_ptr<server_task_result> atlas_result_at_end() {
    if (!atlas_state().ending.has_begun) {
        return nullptr;
    }
    auto result      = std::make_unique<server_task_result_error>();
    result->err_type = ERROR_TYPE_UNAVAILABLE;
    result->err_msg  = SHUTTING_DOWN;
    return result;
}

// The handler of a second signal. Takes no lock, runs no destructor and waits for nobody who reads the log.
static void end_at_once(int) {
    static const char MESSAGE[] = "Received second interrupt, terminating immediately.\n";

    pollfd log = {STDERR_FILENO, POLLOUT, 0};
    if (poll(&log, 1, 0) == 1 && (log.revents & POLLOUT) != 0) {
        (void) !write(STDERR_FILENO, MESSAGE, sizeof(MESSAGE) - 1);
    }
    _exit(1);
}

std::function<void(int)> atlas_defer_from_signal(std::function<void(int)> handler, std::function<void()> end_models) {
    auto & state = atlas_state();
    std::thread([&state, handler = std::move(handler), end_models = std::move(end_models)] {
        auto & ending = state.ending;
        while (sem_wait(&ending.requested) != 0) {
        }
        if (end_models) {
            end_models();
        }
        handler(0);
        // a router waits for its clients before it comes to stop()
        if (end_models && state.runtime) {
            wait_for_shutdown_timeout(*state.runtime);
            if (!ending.has_begun) {
                end_process(ending, OPEN_REQUESTS);
            }
        }
    }).detach();
    return [&ending = state.ending](int number) {
        ending.is_requested = true;
        if (number != 0) { // not of a router's child, which may be asked on both ways
            struct sigaction again = {};
            again.sa_handler       = end_at_once;
            sigaction(SIGINT, &again, nullptr);
            sigaction(SIGTERM, &again, nullptr);
        }
        sem_post(&ending.requested);
    };
}
