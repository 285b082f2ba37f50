#include "preloader.hpp"

#include "atlas-log.hpp"

#include <algorithm>

namespace atlas::memory {

void preloader::run() {
    if (!wait_for_index()) {
        return;
    }
    const auto began = clock::now();
    for (auto pieces = next(); pieces && read(*pieces); pieces = next()) {
    }
    finish(clock::now() - began);
}

// Before that it is not known what was used last. Returns false when the store is being closed.
bool preloader::wait_for_index() {
    std::unique_lock<std::mutex> held(state.mutex);
    state.progress.wait(held, [&] { return state.is_stopping || state.entries.counters.index_complete; });
    return !state.is_stopping;
}

std::optional<std::vector<match_piece>> preloader::next() {
    std::optional<std::vector<match_piece>> found;
    state.in_steps([&] {
        found.reset();
        // a disk that fails is left to those who need it
        if (!state.is_stopping && !state.reading.is_waiting()) {
            found = state.entries.next_to_preload(roots, AT_ONCE, cursor);
        }
        return found && found->empty();
    });
    return found;
}

// Returns false when it is enough.
bool preloader::read(std::vector<match_piece> & pieces) {
    for (match_piece & piece : pieces) {
        give_way();
        const auto began = clock::now();
        if (!source.read(piece)) {
            return true; // what continues it is of no use
        }
        {
            const std::lock_guard<std::mutex> held(state.mutex);
            if (state.is_stopping || !state.entries.preload(piece, max_bytes)) {
                return false;
            }
        }
        rest(clock::now() - began);
    }
    return true;
}

// To requests, which may be reading the same.
void preloader::give_way() {
    using namespace std::chrono_literals;
    std::unique_lock<std::mutex> held(state.mutex);
    while (!state.is_stopping && state.n_finding > 0) {
        state.stop.wait_for(held, 2ms);
    }
}

// While something generates, a fiftieth of the time is worked.
void preloader::rest(clock::duration worked) {
    using namespace std::chrono_literals;
    if (state.is_busy) {
        std::unique_lock<std::mutex> held(state.mutex);
        state.stop.wait_for(held, std::min<clock::duration>(49 * worked, 10s), [&] { return state.is_stopping; });
    }
}

void preloader::finish(clock::duration spent) {
    memory_stats now;
    {
        const std::lock_guard<std::mutex> held(state.mutex);
        state.entries.counters.preload_complete = true;
        now                                     = state.entries.counters;
    }
    if (now.preloaded_entries > 0) {
        logf(LogLevel::INFO, "read %.1f MiB of what was used last from disk into RAM in %.2f s",
             (double) now.preloaded_bytes / (1 << 20), std::chrono::duration<double>(spent).count());
    }
}

} // namespace atlas::memory
