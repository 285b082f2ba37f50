// The end of the server: who asked for it, and how far it is.
#pragma once

#ifdef LLAMA_ATLAS

#include <semaphore.h>

#include <atomic>
#include <functional>

struct atlas_ending {
    std::atomic<bool> is_requested{false}; // a signal or the router asked for the end
    std::atomic<bool> has_begun{false};    // atlas_server::stop() has: no more results come

    // Posted by the signal handler; it is one of the few things that one may do.
    sem_t requested;

    // What writes back all that slots hold. Set and called by the thread that runs the loop.
    std::function<void()> write_back;

    atlas_ending() { sem_init(&requested, 0, 0); }
};

#endif // LLAMA_ATLAS
