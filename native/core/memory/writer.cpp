#include "writer.hpp"

#include "atlas-log.hpp"

#include <exception>

namespace atlas::memory {

constexpr size_t MAX_UNSYNCED = 64; // directories that wait for a sync while there is more to write
constexpr size_t MAX_TRIM     = 64; // entries given up without a look at the queue

// Runs `action` on the thread of low priority, without the lock. Returns what went wrong, or an empty text.
template <typename F> std::string writer::unlocked(lock & held, F action, const std::function<void()> & meanwhile) {
    std::string problem;
    held.unlock();
    try {
        background.run(
            [&] {
                try {
                    action();
                } catch (const std::exception & error) {
                    problem = reason_of(error);
                }
            },
            meanwhile);
    } catch (const std::bad_alloc & error) {
        problem = reason_of(error);
    }
    held.lock();
    return problem;
}

void writer::run() {
    lock held(state.mutex);
    while (!state.is_stopping) {
        try {
            act(held);
        } catch (const std::bad_alloc &) { // the job that was begun is in the queue again
            state.stop.wait_for(held, NO_MEMORY_PAUSE, [&] { return state.is_stopping; });
        }
    }
}

void writer::act(lock & held) {
    if (auto released = state.entries.take_released(); !released.empty()) {
        unlocked(held, [&] { released.clear(); });
    }
    log_trouble(held);
    if (state.is_stopping) {
        return;
    }
    if (state.hasty_tries == 0 && state.writing.is_waiting()) {
        state.work.wait_until(held, state.writing.retry_at());
    } else if (!step(held)) {
        if (const auto due = state.entries.queue.next_due()) {
            state.work.wait_until(held, *due);
        } else {
            state.work.wait(held);
        }
    }
}

// Logs once when trouble begins and once when it ends, however often it is met.
void writer::log_trouble(lock & held) {
    const std::string problem = state.stats().disk_problem;
    if (problem.empty() != logged.empty()) {
        logged = problem;
        unlocked(held, [&] {
            if (problem.empty()) {
                log(LogLevel::INFO, "the memory on disk works again");
            } else {
                logf(LogLevel::WARN, "the memory on disk does not work, and is tried again from time to time: %s",
                     problem.c_str());
            }
        });
    }
}

// Does the next thing that there is to do. Returns false when there is none.
bool writer::step(lock & held) {
    write_queue &  queue       = state.entries.queue;
    const uint64_t finished    = queue.finished_through();
    const bool     is_flushing = state.flush_target > state.durable;
    const bool     is_awaited  = is_flushing && finished >= state.flush_target;
    const bool     is_due      = !queue.has_job(is_flushing) || state.files.n_unsynced() >= MAX_UNSYNCED;
    if (finished > state.durable && (is_awaited || is_due)) {
        sync(held);
        return true;
    }
    if (auto files = queue.pop_removal(); !files.empty()) {
        if (state.files.n_unsynced() > 0 && !sync(held)) { // the file that replaces this one must be durable first
            queue.push_again(files);
        } else {
            remove(held, std::move(files));
        }
        return true;
    }
    if (state.entries.resume_writes(AT_ONCE)) {
        return true;
    }
    if (const auto job = queue.pop(is_flushing)) {
        write(held, *job);
        return true;
    }
    if (trim(held)) {
        return true;
    }
    if (!state.writing.problem().empty()) {
        state.writing.end(); // all jobs are done, also those that had failed
        return true;
    }
    return false;
}

// Evicts what is over a budget. Returns whether there was anything.
bool writer::trim(lock & held) {
    const uint64_t before  = state.entries.index_bytes();
    auto           victims = state.entries.trim(MAX_TRIM);
    const bool     is_less = state.entries.index_bytes() < before;
    const bool     is_done = victims.empty() && !is_less;
    remove(held, std::move(victims));
    if (is_less) {
        state.progress.notify_all(); // the indexer may wait for room
    }
    return !is_done;
}

// Pauses while a slot generates, so that the writer works a fifth of the time. Generating needs the bandwidth of the
// RAM: so the work slows many tokens a little, instead of a few much. There is no pause when flush() waits or the queue
// fills up.
void writer::rest(clock::duration worked) {
    constexpr int                MAX_RESTS = 4;
    std::unique_lock<std::mutex> held(state.mutex);
    const auto                   is_in_haste = [&] {
        return state.is_stopping || state.flush_target > state.durable || state.entries.queue.is_half_full();
    };
    if (state.is_busy && !is_in_haste()) {
        state.stop.wait_for(held, MAX_RESTS * worked, is_in_haste);
    }
}

void writer::write(lock & held, const disk_job & job) {
    catalog &                 entries = state.entries;
    std::optional<write_task> task;
    try {
        task = entries.begin_write(job);
    } catch (const std::bad_alloc &) {
        entries.end_write(job, false);
        throw;
    }
    if (!task) {
        state.progress.notify_all();
        return;
    }
    if (!remove(held, std::move(task->victims)) || !entries.start_write()) {
        entries.end_write(job, false);
        return;
    }
    uint64_t    n_bytes = 0;
    const auto  start   = clock::now();
    auto        began   = start;
    std::string problem = unlocked(
        held, [&] { n_bytes = state.files.write(task->header, task->entry->data, [&] { background.pause(); }); },
        [&] {
            rest(clock::now() - began);
            began = clock::now();
        });
    if (problem.empty()) {
        entries.note_written(job, n_bytes, std::chrono::duration<double>(clock::now() - start).count());
    }
    entries.end_write(job, problem.empty());
    if (problem.empty()) {
        entries.counters.written_entries++;
        entries.counters.written_bytes += n_bytes;
        succeeded();
    } else {
        failed(std::move(problem));
    }
}

// Returns false when a file could not be removed: that is tried again later, and the file counts until then.
bool writer::remove(lock & held, std::list<stored_file> files) {
    bool is_done = true;
    while (!files.empty()) {
        std::string problem;
        if (state.entries.must_remove(files.front())) {
            problem = unlocked(held, [&] { state.files.remove(files.front().key); });
        }
        if (problem.empty()) {
            state.entries.end_removal(files.front());
            files.pop_front();
        } else {
            state.entries.queue.push_again(files);
            failed(std::move(problem));
            is_done = false;
        }
    }
    return is_done;
}

bool writer::sync(lock & held) {
    const uint64_t finished = state.entries.queue.finished_through();
    std::string    problem  = unlocked(held, [&] { state.files.sync(); });
    if (!problem.empty()) {
        failed(std::move(problem));
        return false;
    }
    state.durable = finished;
    state.entries.events.durable();
    if (state.durable >= state.flush_target) {
        state.hasty_tries = 0;
    }
    state.progress.notify_all();
    return true;
}

void writer::failed(std::string problem) {
    state.entries.counters.write_failures++;
    state.writing.begin(std::move(problem));
    state.hasty_tries -= state.hasty_tries > 0;
    state.progress.notify_all();
}

void writer::succeeded() {
    for (disk_trouble * one : {&state.writing, &state.indexing, &state.reading}) {
        one->end();
    }
    state.hasty_tries -= state.hasty_tries > 0;
    state.stop.notify_all(); // the indexer need not wait any longer
}

} // namespace atlas::memory
