#include "atlas-timely-calls.hpp"

#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

namespace atlas {

struct timely_calls::state {
    std::mutex              mutex;
    std::condition_variable changed;
    bool                    is_taken = false; // a call is under way
    bool                    is_late  = false; // and nobody waits for it any more
};

namespace {

struct outcome {
    bool                         is_there = false;
    std::optional<http_response> answer; // nothing: the call threw
};

std::optional<http_response> answer_of(const std::function<http_response()> & call) noexcept {
    try {
        return call();
    } catch (...) {
        return std::nullopt;
    }
}

} // namespace

timely_calls::timely_calls() : shared(std::make_shared<state>()) {}

std::optional<http_response> timely_calls::run(std::function<http_response()> call, std::chrono::milliseconds limit) {
    const auto                   deadline = std::chrono::steady_clock::now() + limit;
    const auto                   returned = std::make_shared<outcome>();
    std::unique_lock<std::mutex> lock(shared->mutex);
    shared->changed.wait_until(lock, deadline, [this] { return !shared->is_taken || shared->is_late; });
    if (shared->is_taken) {
        return std::nullopt;
    }
    try {
        std::thread([on = shared, returned, call = std::move(call)] {
            auto                              answer = answer_of(call);
            const std::lock_guard<std::mutex> held(on->mutex);
            returned->is_there = true;
            returned->answer   = std::move(answer);
            on->is_taken = on->is_late = false;
            on->changed.notify_all();
        }).detach();
    } catch (const std::exception &) {
        return std::nullopt;
    }
    shared->is_taken = true;
    if (!shared->changed.wait_until(lock, deadline, [&] { return returned->is_there; })) {
        shared->is_late = true;
        shared->changed.notify_all();
        return std::nullopt;
    }
    return std::move(returned->answer);
}

} // namespace atlas
