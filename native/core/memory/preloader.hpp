// The thread that, after a start, reads into RAM what was used last, before a request asks for it. Reads files without
// the store's mutex; the store makes it, and ends it.
#pragma once

#include "reader.hpp"

#include <set>
#include <thread>

namespace atlas::memory {

class preloader {
  public:
    // Begins at once, and fills `max_bytes` of tier 1 with entries of the roots.
    preloader(shared_state & state, reader & source, std::set<digest> roots, uint64_t max_bytes)
        : state(state), source(source), roots(std::move(roots)), max_bytes(max_bytes), thread([this] { run(); }) {}
    ~preloader() {
        state.stop_all();
        thread.join();
    }

  private:
    using clock = std::chrono::steady_clock;

    shared_state &                   state;
    reader &                         source;
    const std::set<digest>           roots;
    const uint64_t                   max_bytes;
    std::optional<tier_books::place> cursor; // conversations from here on were looked at
    size_t                           n_failures = 0;
    std::thread                      thread; // last: it uses the others

    void                                    run();
    bool                                    wait_for_index();
    std::optional<std::vector<match_piece>> next();
    bool                                    read(std::vector<match_piece> & pieces);
    preload_step                            before(const match_piece & piece);
    preload_step                            keep(const match_piece & piece);
    void                                    rest(clock::duration worked);
    void                                    finish(clock::duration spent);
};

} // namespace atlas::memory
