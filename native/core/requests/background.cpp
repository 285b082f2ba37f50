#include "atlas-background.hpp"

#include "atlas-error.hpp"

#include <algorithm>
#include <system_error>
#include <thread>

namespace atlas {

static constexpr int RETRY_AFTER_S = 5;

//
// one response
//

bool background_response::claim() {
    const std::lock_guard<std::mutex> lock(mutex);
    claimed = !is_over();
    return claimed;
}

bool background_response::is_claimed() const {
    const std::lock_guard<std::mutex> lock(mutex);
    return claimed;
}

void background_response::finish(over why) {
    const std::lock_guard<std::mutex> lock(mutex);
    if (!claimed && !is_over() && now != state::ended) {
        why_over = why;
    }
}

void background_response::hold(std::string response) {
    const std::lock_guard<std::mutex> lock(mutex);
    held = std::move(response);
}

void background_response::set(state to) {
    const std::lock_guard<std::mutex> lock(mutex);
    now = to;
}

std::string background_response::shown() const {
    const std::lock_guard<std::mutex> lock(mutex);
    return now == state::waiting ? queued : now == state::running ? in_progress : held;
}

//
// all
//

background_responses::~background_responses() { close(std::chrono::hours(24)); }

void background_responses::accept(const shared & response) {
    const auto                        allowed = limits();
    const std::lock_guard<std::mutex> lock(mutex);
    if (is_closed) {
        throw error(503, "the server is shutting down");
    }
    const bool is_due = n_running < allowed.running && n_waiting == 0;
    if (!is_due && (n_waiting >= allowed.waiting || waiting_bytes + response->bytes > MAX_BACKGROUND_WAITING)) {
        counted.refused++;
        throw error(429,
                    "too many responses wait in the background: try again later, or start the server with more "
                    "--atlas-background-running or --atlas-background-waiting",
                    RETRY_AFTER_S);
    }
    n_waiting++;
    waiting_bytes += response->bytes;
}

void background_responses::begin(const shared & response, maker make_it) {
    response->make = std::move(make_it);
    {
        const std::lock_guard<std::mutex> lock(mutex);
        all[{response->tenant, response->id}] = response;
        if (!is_closed) {
            queue.push_back(response);
            start_due();
            return;
        }
        leave_queue(*response);
        response->finish(background_response::over::stopped);
        n_making++;
    }
    make(response);
}

void background_responses::withdraw(const shared & response) {
    const std::lock_guard<std::mutex> lock(mutex);
    leave_queue(*response);
}

void background_responses::look() {
    const std::lock_guard<std::mutex> lock(mutex);
    start_due();
}

void background_responses::leave_queue(const background_response & response) {
    n_waiting--;
    waiting_bytes -= response.bytes;
}

void background_responses::start_due() {
    const int64_t most = limits().running;
    while (!is_closed && n_running < most && !queue.empty()) {
        const shared next = queue.front();
        try {
            std::thread([this, next] {
                next->set(background_response::state::running);
                make(next);
                const std::lock_guard<std::mutex> lock(mutex);
                n_running--;
                start_due();
                changed.notify_all();
            }).detach();
        } catch (const std::system_error &) {
            return; // tried again when one ends, or another is accepted
        }
        queue.pop_front();
        leave_queue(*next);
        n_running++;
        n_making++;
    }
}

void background_responses::make(const shared & response) {
    const auto ended = response->make(*response);
    response->make   = nullptr; // and what it holds of the request
    {
        const std::lock_guard<std::mutex> lock(mutex);
        response->set(background_response::state::ended);
        response->events.end();
        counted.ended[static_cast<size_t>(ended)]++;
        if (response->is_streamed || !response->shown().empty()) {
            event_bytes += response->shown().size();
            told.push_back(response);
        } else {
            all.erase({response->tenant, response->id});
        }
        n_making--;
        changed.notify_all();
    }
    trim();
}

background_responses::shared background_responses::find(const std::string & tenant, const std::string & id) {
    const std::lock_guard<std::mutex> lock(mutex);
    const auto                        found = all.find({tenant, id});
    return found != all.end() ? found->second : nullptr;
}

bool background_responses::cancel(const shared & response, clock::duration patience) {
    const auto deadline = clock::now() + patience;
    bool       waited   = false;
    response->finish(background_response::over::cancelled);
    {
        const std::lock_guard<std::mutex> lock(mutex);
        const auto                        place = std::find(queue.begin(), queue.end(), response);
        if (place != queue.end()) {
            queue.erase(place);
            leave_queue(*response);
            n_making++;
            waited = true;
        }
    }
    if (waited) {
        make(response); // there is nothing to make
    }
    std::unique_lock<std::mutex> lock(mutex);
    return changed.wait_until(lock, deadline, [&] {
        const std::lock_guard<std::mutex> own(response->mutex);
        return response->now == background_response::state::ended;
    });
}

void background_responses::forget(const shared & response) {
    const std::lock_guard<std::mutex> lock(mutex);
    const auto                        place = std::find(told.begin(), told.end(), response);
    if (place != told.end()) {
        told.erase(place);
        event_bytes -= response->shown().size() + response->events.drop(response->events.bytes());
        all.erase({response->tenant, response->id});
    }
}

bool background_responses::close(clock::duration patience) {
    const auto         deadline = clock::now() + patience;
    std::deque<shared> waiting;
    {
        const std::lock_guard<std::mutex> lock(mutex);
        is_closed = true;
        waiting.swap(queue);
        for (const auto & each : waiting) {
            leave_queue(*each);
        }
        for (const auto & [name, each] : all) {
            each->finish(background_response::over::stopped);
        }
    }
    for (const auto & each : waiting) {
        if (clock::now() >= deadline) {
            break; // they are as after a kill
        }
        {
            const std::lock_guard<std::mutex> lock(mutex);
            n_making++;
        }
        make(each);
    }
    std::unique_lock<std::mutex> lock(mutex);
    const bool is_over = changed.wait_until(lock, deadline, [this] { return n_making == 0 && n_running == 0; });
    for (const auto & [name, each] : all) {
        each->events.end(); // for who reads them still
    }
    return is_over;
}

//
// events
//

void background_responses::add_event(background_response & to, std::string event) {
    event_bytes += event.size();
    to.events.add(std::move(event));
    if (event_bytes > MAX_BACKGROUND_EVENTS) {
        trim();
    }
}

void background_responses::trim() {
    const std::lock_guard<std::mutex> lock(mutex);
    while ((event_bytes > MAX_BACKGROUND_EVENTS || told.size() > MAX_BACKGROUND_ENDED) && drop_oldest()) {
    }
}

bool background_responses::drop_oldest() {
    if (!told.empty()) {
        const shared oldest = told.front();
        told.pop_front();
        event_bytes -= oldest->shown().size() + oldest->events.drop(oldest->events.bytes());
        all.erase({oldest->tenant, oldest->id});
        return true;
    }
    const auto   largest = std::max_element(all.begin(), all.end(), [](const auto & a, const auto & b) {
        return a.second->events.bytes() < b.second->events.bytes();
    });
    const size_t n_freed = largest == all.end() ? 0 : largest->second->events.drop(event_bytes - MAX_BACKGROUND_EVENTS);
    event_bytes -= n_freed;
    return n_freed > 0;
}

background_stats background_responses::stats() {
    const std::lock_guard<std::mutex> lock(mutex);
    background_stats                  now = counted;
    now.running                           = n_running;
    now.waiting                           = n_waiting;
    now.ended_kept                        = (int64_t) told.size();
    now.event_bytes                       = event_bytes;
    return now;
}

} // namespace atlas
