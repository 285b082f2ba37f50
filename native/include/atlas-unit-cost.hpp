// What a byte or a token costs, learned from what was measured.
#pragma once

#include <atomic>

namespace atlas {

// Fewer bytes than this tell more of the scheduler than of what a byte costs.
constexpr double MIN_MEASURED_BYTES = 4 << 20;

// Seconds that one unit takes: a mean in which each measurement counts a fifth. Any thread; of two measurements at the
// same moment one may be lost.
class unit_cost {
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

} // namespace atlas
