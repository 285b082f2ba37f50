// Whether moving state pays, learned from measured times. Touches atomics only; HTTP threads and the token loop use it.
#pragma once

#include <atomic>
#include <cstdint>

namespace atlas {

// The seconds that one unit takes: an exponentially weighted mean, in which a new measurement counts a fifth. Any
// thread; of two measurements at the same moment one may be lost.
class ewma_cost {
  public:
    void add(double seconds, double units) {
        if (seconds > 0 && units > 0) {
            const double before = mean.load(std::memory_order_relaxed);
            const double now    = seconds / units;
            mean.store(before > 0 ? before + (now - before) / 5 : now, std::memory_order_relaxed);
        }
    }

    // 0: nothing was measured yet.
    double seconds_per_unit() const { return mean.load(std::memory_order_relaxed); }

  private:
    std::atomic<double> mean{0};
};

// One way of moving state: reading it from disk, or copying it into a context. Any thread.
class transfer_cost {
  public:
    // Adds a measurement. Less than 4 MiB is not counted: its time says more about the scheduler than about a byte.
    void add(double seconds, double bytes) {
        if (bytes >= MIN_MEASURED_BYTES) {
            byte.add(seconds, bytes);
        }
    }

    // 0: nothing was measured yet.
    double seconds_per_byte() const { return byte.seconds_per_unit(); }

    // Whether moving so many bytes would clearly take longer than computing, which takes compute_s seconds (0: not
    // known). "Clearly", since measured times are noisy. Now and then the answer is no all the same, so that a change
    // is noticed.
    bool is_too_slow(double bytes, double compute_s) {
        const bool too_slow = compute_s > 0 && byte.seconds_per_unit() * bytes > 2 * compute_s + NOTICED_S;
        return too_slow && ++n_too_slow % TRY_AGAIN != 0;
    }

  private:
    static constexpr double   MIN_MEASURED_BYTES = 4 << 20;
    static constexpr double   NOTICED_S          = 0.005;
    static constexpr uint64_t TRY_AGAIN          = 32;

    ewma_cost             byte;
    std::atomic<uint64_t> n_too_slow{0};
};

} // namespace atlas
