#include "bounded-work.hpp"

#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

namespace atlas {

struct bounded_work::state {
    std::mutex              mutex;
    std::condition_variable changed;
    size_t                  n_late = 0;
};

namespace {

struct piece {
    bool               is_done = false;
    bool               is_late = false;
    std::exception_ptr thrown;
};

} // namespace

bounded_work::bounded_work(size_t max_late) : max_late(max_late), shared(std::make_shared<state>()) {}

void bounded_work::run(std::function<void()> work, tier_deadline until, const std::string & late) const {
    const auto                   mine = std::make_shared<piece>();
    std::unique_lock<std::mutex> held(shared->mutex);
    if (shared->n_late >= max_late || tier_clock::now() >= until) {
        throw tier_error(tier_failure::late, late);
    }
    std::thread([on = shared, mine, work = std::move(work)]() mutable {
        std::exception_ptr thrown;
        try {
            work();
        } catch (...) {
            thrown = std::current_exception();
        }
        work = nullptr; // what it owns may take long to free
        const std::lock_guard<std::mutex> held(on->mutex);
        mine->is_done = true;
        mine->thrown  = std::move(thrown);
        on->n_late -= mine->is_late;
        on->changed.notify_all();
    }).detach();
    if (!shared->changed.wait_until(held, until, [&] { return mine->is_done; })) {
        mine->is_late = true;
        shared->n_late++;
        throw tier_error(tier_failure::late, late);
    }
    if (auto thrown = std::exchange(mine->thrown, nullptr)) { // its thread has no part in it any more
        std::rethrow_exception(std::move(thrown));
    }
}

} // namespace atlas
