// What the callers of a store and its threads share, and the mutex that guards it. The token loop takes that mutex:
// nobody touches the disk, or does much, while holding it.
#pragma once

#include "catalog.hpp"
#include "directory.hpp"
#include "disk-trouble.hpp"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

namespace atlas::memory {

constexpr size_t AT_ONCE = 64; // entries handled under one hold of the mutex, for which the token loop may have to wait

constexpr std::chrono::milliseconds NO_MEMORY_PAUSE{50}; // before work that failed for want of memory is tried again

struct shared_state {
    explicit shared_state(const memory_options & options)
        : files(options.path, options.sync_each, options.seal), entries(options) {}

    directory files;

    // No disk access and no hashing of data while it is held: the token loop waits for it.
    std::mutex              mutex;
    std::condition_variable work; // something for the writer to do
    std::condition_variable progress; // something that flush() may wait for, or the index is complete
    std::condition_variable share_work; // something for the sharers to do: each is woken
    std::condition_variable stop; // is_stopping was set, somebody waits for the writer, or trouble has ended

    std::atomic<bool> is_busy{false}; // a slot generates, so the writer works slowly
    std::atomic<int>  n_finding{0}; // lookups that may be reading

    catalog  entries;
    bool     is_stopping  = false;
    uint64_t durable      = 0; // every write up to this sequence is durable, or not needed any more
    uint64_t flush_target = 0; // the sequence up to which flush() waits
    size_t   hasty_tries  = 0; // so many more writes are tried without a pause after a failure, for flush()

    disk_trouble writing, indexing, reading;

    memory_stats stats() const;

    // Calls step() with the mutex until it returns false. Between two steps it sleeps, so that others get the mutex: a
    // mutex is not fair, and a thread that takes it again at once is faster than one that was woken for it.
    template <typename F> void in_steps(F step) {
        while (true) {
            {
                const std::lock_guard<std::mutex> held(mutex);
                if (!step()) {
                    return;
                }
            }
            std::this_thread::sleep_for(std::chrono::microseconds(20));
        }
    }

    // Whether the threads are to end. Takes the mutex.
    bool is_closing() {
        const std::lock_guard<std::mutex> held(mutex);
        return is_stopping;
    }

    // Makes the threads end.
    void stop_all();

    // Drops the references of a session that was taken, in steps; with is_unwanted deletes the entries that are not
    // shared. Returns the bytes that were deleted. Takes the mutex.
    uint64_t unref(session taken, bool is_unwanted);
};

} // namespace atlas::memory
