#include "low-priority-thread.hpp"

#include <sys/resource.h>

namespace atlas::memory {

using lock = std::unique_lock<std::mutex>;

low_priority_thread::~low_priority_thread() {
    {
        const std::lock_guard<std::mutex> held(mutex);
        is_ending = true;
    }
    changed.notify_all();
    thread.join();
}

void low_priority_thread::run(const std::function<void()> & wanted, const std::function<void()> & meanwhile) {
    lock held(mutex);
    action = &wanted;
    while (true) {
        is_its_turn = true;
        changed.notify_all();
        changed.wait(held, [&] { return !is_its_turn; });
        if (!action) {
            return;
        }
        held.unlock();
        meanwhile();
        held.lock();
    }
}

void low_priority_thread::pause() {
    lock held(mutex);
    is_its_turn = false;
    changed.notify_all();
    changed.wait(held, [&] { return is_its_turn; });
}

void low_priority_thread::work() {
    ::setpriority(PRIO_PROCESS, 0, 10); // Linux: of this thread only
    lock held(mutex);
    while (true) {
        changed.wait(held, [&] { return is_its_turn || is_ending; });
        if (is_ending) {
            return;
        }
        held.unlock();
        (*action)();
        held.lock();
        action      = nullptr;
        is_its_turn = false;
        changed.notify_all();
    }
}

} // namespace atlas::memory
