#include "atlas-hook-calls.hpp"

#include "atlas-error.hpp"
#include "atlas-log.hpp"
#include "hook-call.hpp"

#include <algorithm>
#include <utility>

namespace atlas {

//
// the table
//

std::shared_ptr<hook_tally> hook_calls::tally_of(const hook_implementation & of, hook what) {
    for (const auto & known : all_tallies) {
        if (known.plugin == of.plugin && known.what == what && known.tier == of.tier) {
            return known.tally;
        }
    }
    all_tallies.push_back({of.plugin, what, std::make_shared<hook_tally>(), of.tier});
    return all_tallies.back().tally;
}

void hook_calls::set_table(hook_table && next) {
    const std::lock_guard<std::mutex> held(mutex);
    uint32_t                          bits = 0;
    for (size_t i = 0; i < N_HOOKS; i++) {
        for (auto & each : next.by_hook[i]) {
            each.tally = tally_of(each, static_cast<hook>(i));
            each.tally->turn_on();
            bits |= 1u << i;
        }
    }
    current = std::make_shared<const hook_table>(std::move(next));
    hooked  = bits;
    all_tables.erase(
        std::remove_if(all_tables.begin(), all_tables.end(), [](const auto & each) { return each.expired(); }),
        all_tables.end());
    all_tables.push_back(current);
}

std::vector<uint64_t> hook_calls::tables_in_use() const {
    const std::lock_guard<std::mutex> held(mutex);
    std::vector<uint64_t>             numbers;
    for (const auto & each : all_tables) {
        if (const auto table = each.lock()) {
            numbers.push_back(table->number);
        }
    }
    return numbers;
}

void hook_calls::set_limits(const hook_limits & next) {
    const std::lock_guard<std::mutex> held(mutex);
    limits = next;
}

std::shared_ptr<const hook_table> hook_calls::table() const {
    const std::lock_guard<std::mutex> held(mutex);
    return current;
}

bool hook_calls::turn_on(const std::string & plugin) {
    bool was_off = false;
    for (const auto & known : tallies()) {
        if (known.plugin == plugin) {
            was_off |= known.tally->turn_on();
        }
    }
    return was_off;
}

std::vector<hook_calls::counted> hook_calls::tallies() const {
    const std::lock_guard<std::mutex> held(mutex);
    return all_tallies;
}

//
// who asks
//

hook_outcome hook_calls::ask(std::shared_ptr<const hook_table> table, hook what, uint64_t request, hook_text head,
                             hook_text body) {
    hook_outcome                 outcome;
    std::unique_lock<std::mutex> held(mutex);
    for (size_t at = 0; at < table->of(what).size();) {
        const auto asked = std::make_shared<call>();
        asked->request   = request;
        asked->table     = table;
        asked->what      = what;
        asked->head      = head;
        asked->body      = body;
        asked->asked     = clock::now();
        asked->go_to(at);
        if (!asked->is_done && !is_closed) {
            push(asked);
            wait(held, *asked);
        } else if (!asked->is_done) {
            throw error(503, "the server is shutting down");
        }
        if (asked->refusal) {
            throw error(*asked->refusal);
        }
        if (asked->outcome.changed) {
            body = outcome.changed = asked->outcome.changed;
        }
        if (asked->outcome.answer) {
            outcome.answer = std::move(asked->outcome.answer);
            break;
        }
        at = asked->at;
    }
    return outcome;
}

void hook_calls::tell(std::shared_ptr<const hook_table> table, hook what, uint64_t request, hook_text head,
                      hook_text body) {
    const auto told = std::make_shared<call>();
    told->request   = request;
    told->table     = std::move(table);
    told->what      = what;
    told->head      = std::move(head);
    told->body      = std::move(body);
    told->is_told   = true;

    const std::lock_guard<std::mutex> held(mutex);
    if (is_closed || n_told >= MAX_TOLD) {
        n_dropped++;
        return;
    }
    n_told++;
    push(told);
}

void hook_calls::push(const call_ptr & what) {
    what->number = ++last_number;
    queue.push_back(what);
    if (n_idle > 0) {
        work_there.notify_one();
    } else {
        workers_wanted.notify_one(); // where none is needed now, one is as soon as a call is over its deadline
    }
}

void hook_calls::wait(std::unique_lock<std::mutex> & held, call & what) {
    while (!what.is_done) {
        what.woken = what.leaves_at();
        if (what.changed.wait_until(held, what.woken) == std::cv_status::timeout && !what.is_done) {
            const auto now = clock::now();
            if (now >= what.leaves_at()) { // else it is at the next implementation already
                leave(what, now);
                return;
            }
        }
    }
}

void hook_calls::leave(call & what, clock::time_point now) {
    const auto & by = what.by();
    by.tally->ns += std::chrono::nanoseconds(now - what.asked).count();
    what.left = what.has_begun ? by.tally : nullptr;
    if (what.has_begun &&
        now - what.begun >= by.deadline / 2) { // else it had not much of its time, as no worker was free
        miss(by, what.begun, now);
    } else {
        by.tally->unserved++;
    }
    what.how     = what.has_begun ? hook_answer::result::late : hook_answer::result::unserved;
    what.is_left = true;
    queue.erase(std::remove_if(queue.begin(), queue.end(), [&](const auto & each) { return each.get() == &what; }),
                queue.end());
    what.do_without("did not answer in time");
    drained.notify_all();
    if (needs_worker(now)) {
        workers_wanted.notify_one(); // the one that has this call is held up
    }
}

void hook_calls::miss(const hook_implementation & by, clock::time_point began, clock::time_point now) {
    const int in_a_row = by.tally->miss(began, now);
    if (in_a_row >= limits.max_in_a_row && !by.tally->is_off.exchange(true)) {
        logf(
            LogLevel::ERROR,
            "plugin '%s' missed its deadline of %lld ms %d times in a row and is off; POST /v1/atlas/plugins/%s/enable "
            "turns it on again",
            by.plugin.c_str(), (long long) by.deadline.count(), in_a_row, by.plugin.c_str());
    }
}

//
// workers
//

bool hook_calls::needs_worker(clock::time_point now) const {
    if (is_closed || queue.empty() || n_idle > 0 || n_starting > 0 || n_workers >= MAX_WORKERS) {
        return false;
    }
    const size_t held_up =
        std::count_if(taken.begin(), taken.end(), [&](const auto & each) { return each.second->is_overdue(now); });
    return n_workers - held_up < (size_t) limits.max_workers;
}

hook_calls::clock::time_point hook_calls::next_overdue(clock::time_point now) const {
    auto next = now + std::chrono::hours(1); // some time: whoever waits looks again
    for (const auto & [number, each] : taken) {
        if (each->is_told && each->has_begun && !each->is_done && !each->is_overdue(now)) {
            next = std::min(next, each->begun + each->by().deadline + std::chrono::nanoseconds(1));
        }
    }
    return next;
}

bool hook_calls::worker_wanted(bool has_failed) {
    std::unique_lock<std::mutex> held(mutex);
    if (has_failed) {
        workers_wanted.wait_for(held, std::chrono::seconds(1), [this] { return is_closed; });
        n_starting--;
    }
    for (auto now = clock::now(); !is_closed && !needs_worker(now); now = clock::now()) {
        workers_wanted.wait_until(held, next_overdue(now));
    }
    n_starting += is_closed ? 0 : 1;
    return !is_closed;
}

bool hook_calls::take(uint64_t previous, hook_work & work) {
    std::unique_lock<std::mutex> held(mutex);
    if (previous == 0) {
        n_starting--;
        n_workers++;
    } else if (const auto found = taken.find(previous); found != taken.end()) {
        const auto before = found->second;
        while (!before->is_done && !before->is_left) { // the worker gave it up
            settle(*before, hook_step::fail, {});
        }
        taken.erase(found);
        drained.notify_all();
    }
    n_idle++;
    work_there.wait(held, [this] { return is_closed || !queue.empty(); });
    n_idle--;
    if (is_closed) {
        n_workers--;
        return false;
    }
    const auto next = queue.front();
    queue.pop_front();
    taken.emplace(next->number, next);
    n_told -= next->is_told ? 1 : 0;
    if (needs_worker(clock::now())) {
        workers_wanted.notify_one();
    }
    work.number  = next->number;
    work.table   = next->table->number;
    work.what    = next->what;
    work.request = next->request;
    work.head    = *next->head;
    work.body    = *next->body;
    work.payload = next->bytes ? next->bytes->size() : 0;
    return true;
}

std::optional<size_t> hook_calls::step(uint64_t number, hook_step what, http_response && with) {
    const std::lock_guard<std::mutex> held(mutex);
    const auto                        found = taken.find(number);
    if (found == taken.end()) {
        return std::nullopt;
    }
    call & goes_on = *found->second;
    if (goes_on.is_left || goes_on.is_done) {
        if (goes_on.left) {
            std::exchange(goes_on.left, nullptr)->late++;
        }
        return std::nullopt;
    }
    return settle(goes_on, what, std::move(with));
}

std::optional<size_t> hook_calls::settle(call & what, hook_step how, http_response && with) {
    const auto now = clock::now();
    if (how == hook_step::begin) {
        what.has_begun = true;
        what.go_to(what.at);
        if (what.is_told) { // from now on it can be over its deadline
            drained.notify_all();
            if (!queue.empty()) {
                workers_wanted.notify_one();
            }
        }
    } else {
        const auto & by = what.by();
        by.tally->ns += std::chrono::nanoseconds(now - (what.is_told ? what.begun : what.asked)).count();
        if (what.is_told && now - what.begun > by.deadline) {
            miss(by, what.begun, now);
        } else if (!what.until) { // else whoever asks knows what it says
            by.tally->keep();
        }
        what.asked = now;
    }
    what.begun = now;
    switch (how) {
        case hook_step::begin: break;
        case hook_step::pass:  what.go_to(what.at + 1); break;
        case hook_step::modify:
            what.outcome.changed = std::make_shared<const std::string>(std::move(with.body));
            what.go_to(what.at + 1);
            break;
        case hook_step::reject:
            what.refusal = error(with.status, with.body, 0, std::move(with.headers));
            what.is_done = true;
            break;
        case hook_step::respond:
            what.outcome.answer = std::move(with);
            what.how            = hook_answer::result::answered;
            what.is_done        = true;
            break;
        case hook_step::fail:
            if (what.until) {
                what.how            = hook_answer::result::failed;
                what.outcome.answer = std::move(with);
            }
            what.do_without("failed");
            break;
    }
    if (what.is_done) {
        what.changed.notify_one();
        return std::nullopt;
    }
    if (what.leaves_at() < what.woken) {
        what.changed.notify_one();
    }
    return what.at;
}

bool hook_calls::drain(double timeout_s) {
    const auto is_drained = [this](clock::time_point now) {
        return queue.empty() &&
               std::all_of(taken.begin(), taken.end(), [&](const auto & each) { return each.second->is_overdue(now); });
    };
    auto       now   = clock::now();
    const auto until = now + std::chrono::duration_cast<clock::duration>(std::chrono::duration<double>(timeout_s));
    std::unique_lock<std::mutex> held(mutex);
    for (; !is_drained(now) && now < until; now = clock::now()) {
        drained.wait_until(held, std::min(until, next_overdue(now)));
    }
    return is_drained(now);
}

void hook_calls::close() {
    const std::lock_guard<std::mutex> held(mutex);
    is_closed = true;
    queue.clear();
    work_there.notify_all();
    workers_wanted.notify_all();
}

} // namespace atlas
