// How long a failing disk is left alone. Touches nothing; whoever reports trouble calls it, with the store's mutex.
#pragma once

#include <algorithm>
#include <chrono>
#include <random>

namespace atlas::memory {

// Delays that double from half a second to 24 s, each changed at random by up to a quarter, so that several servers do
// not try a shared disk in step. Not thread-safe.
class backoff {
  public:
    std::chrono::milliseconds next() {
        std::uniform_real_distribution<double> jitter(0.75, 1.25);
        const double                           delay_ms = base_ms * jitter(random);
        base_ms                                         = std::min(base_ms * 2, MAX_MS);
        return std::chrono::milliseconds((int64_t) delay_ms);
    }

    void reset() { base_ms = FIRST_MS; }

  private:
    static constexpr double FIRST_MS = 500;
    static constexpr double MAX_MS   = 24000;

    double            base_ms = FIRST_MS;
    std::minstd_rand0 random{std::random_device{}()};
};

} // namespace atlas::memory
