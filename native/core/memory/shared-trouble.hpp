// Whether one direction of a tier on the network works. Touches nothing; whoever uses it holds its owner's lock.
#pragma once

#include "atlas-tier.hpp"
#include "disk-trouble.hpp"

namespace atlas::memory {

// A circuit breaker: open from a failure on, or from some late answers in a row, until somebody found that it works.
class tier_breaker {
  public:
    void failed(const tier_error & error) {
        constexpr int MAX_LATE = 3;
        if (error.kind != tier_failure::late || ++n_late >= MAX_LATE) {
            open(error);
        }
    }

    void open(const tier_error & error) { trouble.begin(reason_of(error)); }

    void worked() {
        n_late = 0;
        trouble.end();
    }

    // Where it is open, it is to be tried at once.
    void try_now() { trouble.end_pause(); }

    bool is_open() const { return !trouble.problem().empty(); }
    bool is_to_be_tried() const { return is_open() && !trouble.is_waiting(); }

    const disk_trouble & state() const { return trouble; }

  private:
    disk_trouble trouble;
    int          n_late = 0; // in a row
};

} // namespace atlas::memory
