// What the callers of a store and its two threads share.
#pragma once

#include "catalog.hpp"
#include "directory.hpp"

#include <atomic>
#include <condition_variable>
#include <mutex>

namespace atlas::memory {

struct shared_state {
    explicit shared_state(const memory_options & options) : files(options.path, options.sync_each), entries(options) {}

    directory files;

    // No disk access and no hashing of data while it is held: the token loop waits for it.
    std::mutex              mutex;
    std::condition_variable work;     // something for the writer to do
    std::condition_variable progress; // something that flush() may wait for
    std::condition_variable stop;     // is_stopping was set, or there is haste

    std::atomic<bool> is_busy{false}; // something generates, so that the writer shall not hurry

    catalog  entries;
    bool     is_stopping = false;
    uint64_t durable     = 0; // every write up to this sequence is durable, or not needed any more
    uint64_t asked       = 0; // the sequence up to which flush() waits
    size_t   hasty_tries = 0; // how often the writer shall not wait after a failure
};

} // namespace atlas::memory
