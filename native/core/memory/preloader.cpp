#include "preloader.hpp"

#include "atlas-log.hpp"

#include <algorithm>

namespace atlas::memory {

using namespace std::chrono_literals;

void preloader::run() {
    if (!wait_for_index()) {
        return;
    }
    const auto began = clock::now();
    try {
        for (auto pieces = next(); pieces && read(*pieces); pieces = next()) {
        }
    } catch (const std::bad_alloc &) { // preloading ends here: requests need the memory
    }
    try {
        finish(clock::now() - began);
    } catch (const std::bad_alloc &) { // there is no memory for the log line
    }
}

// Waits for the index, without which it is not known what was used last. Returns false when the store is being closed.
bool preloader::wait_for_index() {
    std::unique_lock<std::mutex> held(state.mutex);
    state.progress.wait(held, [&] { return state.is_stopping || state.entries.counters.index_complete; });
    return !state.is_stopping;
}

std::optional<std::vector<match_piece>> preloader::next() {
    while (true) {
        const auto began = clock::now();
        {
            const std::lock_guard<std::mutex> held(state.mutex);
            if (state.is_stopping) {
                return std::nullopt;
            }
            auto found = state.entries.next_to_preload(roots, AT_ONCE, cursor);
            if (!found || !found->empty()) {
                return found;
            }
        }
        std::this_thread::sleep_for(20us); // the mutex is not fair: without this, others would not get it
        rest(clock::now() - began);
    }
}

// Reads the pieces of one conversation. Returns false when preloading shall end.
bool preloader::read(std::vector<match_piece> & pieces) {
    constexpr size_t MAX_FAILURES = 16; // then preloading ends; requests try the disk themselves
    for (match_piece & piece : pieces) {
        auto step = before(piece);
        if (step == preload_step::go_on) {
            const auto began  = clock::now();
            const auto result = source.read(piece, false);
            if (result != read_result::good) {
                n_failures += result == read_result::failed;
                return n_failures < MAX_FAILURES; // the pieces behind it are of no use without it
            }
            step = keep(piece);
            piece.entry.reset();
            rest(clock::now() - began);
        }
        if (step == preload_step::end) {
            return false;
        }
    }
    return true;
}

// Waits while requests are looked up, which may be reading the same.
preload_step preloader::before(const match_piece & piece) {
    std::unique_lock<std::mutex> held(state.mutex);
    while (!state.is_stopping && state.n_finding > 0) {
        state.stop.wait_for(held, 2ms);
    }
    return state.is_stopping ? preload_step::end : state.entries.next_step(piece, max_bytes);
}

preload_step preloader::keep(const match_piece & piece) {
    const std::lock_guard<std::mutex> held(state.mutex);
    const auto                        step = state.entries.next_step(piece, max_bytes);
    if (step == preload_step::go_on) {
        state.entries.preload(piece);
    }
    return step;
}

// Pauses while a slot generates, so that the preloader works a fiftieth of the time.
void preloader::rest(clock::duration worked) {
    const auto                   end = clock::now() + 49 * worked;
    std::unique_lock<std::mutex> held(state.mutex);
    while (!state.is_stopping && state.is_busy && clock::now() < end) {
        state.stop.wait_for(held, std::min<clock::duration>(end - clock::now(), 50ms));
    }
}

void preloader::finish(clock::duration spent) {
    memory_stats now;
    {
        const std::lock_guard<std::mutex> held(state.mutex);
        if (state.is_stopping) {
            return;
        }
        state.entries.counters.preload_complete = true;
        now                                     = state.entries.counters;
    }
    if (now.preloaded_entries > 0) {
        logf(LogLevel::INFO, "read %.1f MiB of what was used last from disk into RAM in %.2f s",
             (double) now.preloaded_bytes / (1 << 20), std::chrono::duration<double>(spent).count());
    }
}

} // namespace atlas::memory
