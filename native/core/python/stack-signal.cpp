#include "stack-signal.hpp"

#include "atlas-log.hpp"

#include <semaphore.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace atlas {

static constexpr std::chrono::seconds PATIENCE{2};

using stack_source = std::function<std::string()>;

namespace {

// What the signal is for, as long as the process lives.
struct watch {
    sem_t                     requested; // sem_post is one of the few things that a signal handler may do
    std::mutex                mutex;
    std::vector<stack_source> sources;
    bool                      is_on = false;
};

} // namespace

static watch & of_process() {
    static auto & only = *new watch;
    return only;
}

static std::string ask_sources() {
    std::vector<stack_source> sources;
    {
        const std::lock_guard<std::mutex> held(of_process().mutex);
        sources = of_process().sources;
    }
    for (; sources.size() > 1; sources.pop_back()) {
        try {
            return sources.back()();
        } catch (const std::exception &) { // it has stopped
        }
    }
    return sources.front()();
}

static void write_all(const std::string & text) {
    size_t done = 0;
    while (done < text.size()) {
        const ssize_t n = write(STDERR_FILENO, text.data() + done, text.size() - done);
        if (n <= 0) {
            return;
        }
        done += (size_t) n;
    }
}

static void show(void (*dump)(int)) {
    auto answer = std::make_shared<std::promise<std::string>>();
    auto text   = answer->get_future();
    // it stays behind for as long as the lock is kept
    std::thread([answer] {
        try {
            answer->set_value(ask_sources());
        } catch (...) {
            answer->set_exception(std::current_exception());
        }
    }).detach();
    if (text.wait_for(PATIENCE) != std::future_status::ready) {
        return dump(SIGUSR1);
    }
    try {
        write_all(text.get());
    } catch (const std::exception & e) {
        log(LogLevel::WARN, std::string("SIGUSR1: the stacks of Python cannot be shown: ") + e.what());
    }
}

void show_stacks_on_signal(stack_source ask) {
    auto &                            watching = of_process();
    const std::lock_guard<std::mutex> held(watching.mutex);
    watching.sources.push_back(std::move(ask));
    struct sigaction action = {};
    sigaction(SIGUSR1, nullptr, &action);
    if (watching.is_on || action.sa_handler == SIG_DFL || action.sa_handler == SIG_IGN) {
        return;
    }
    watching.is_on = true;
    sem_init(&watching.requested, 0, 0);
    std::thread([&watching, dump = action.sa_handler] {
        while (true) {
            while (sem_wait(&watching.requested) != 0) {
            }
            show(dump);
        }
    }).detach();
    action.sa_handler = [](int) { sem_post(&of_process().requested); };
    action.sa_flags   = SA_RESTART;
    sigaction(SIGUSR1, &action, nullptr);
}

} // namespace atlas
