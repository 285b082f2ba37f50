#include "stack-signal.hpp"

#include "atlas-log.hpp"

#include <semaphore.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <exception>
#include <future>
#include <memory>
#include <thread>
#include <utility>

namespace atlas {

static constexpr std::chrono::seconds PATIENCE{2};

static sem_t requested; // sem_post is one of the few things that a signal handler may do

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

static void show(const std::function<std::string()> & ask, void (*dump)(int)) {
    auto answer = std::make_shared<std::promise<std::string>>();
    auto text   = answer->get_future();
    // it stays behind for as long as the lock is kept
    std::thread([ask, answer] {
        try {
            answer->set_value(ask());
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

void show_stacks_on_signal(std::function<std::string()> ask) {
    struct sigaction action = {};
    sigaction(SIGUSR1, nullptr, &action);
    if (action.sa_handler == SIG_DFL || action.sa_handler == SIG_IGN) {
        return;
    }
    sem_init(&requested, 0, 0);
    std::thread([ask = std::move(ask), dump = action.sa_handler] {
        while (true) {
            while (sem_wait(&requested) != 0) {
            }
            show(ask, dump);
        }
    }).detach();
    action.sa_handler = [](int) { sem_post(&requested); };
    action.sa_flags   = SA_RESTART;
    sigaction(SIGUSR1, &action, nullptr);
}

} // namespace atlas
