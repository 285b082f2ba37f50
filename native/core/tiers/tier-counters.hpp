// Counts what a tier moves. Any thread.
#pragma once

#include "atlas-tier.hpp"

#include <mutex>

namespace atlas {

class tier_counters {
  public:
    tier_counts now() const {
        std::lock_guard held(mutex);
        return counts;
    }

    // A value that came.
    void read(uint64_t n_bytes) {
        std::lock_guard held(mutex);
        counts.reads++;
        counts.read_bytes += n_bytes;
    }

    // Time that values were under way in.
    void read_for(tier_clock::duration time) {
        std::lock_guard held(mutex);
        counts.read_s += std::chrono::duration<double>(time).count();
    }

    void written(uint64_t n_bytes, tier_clock::duration time) {
        std::lock_guard held(mutex);
        counts.writes++;
        counts.written_bytes += n_bytes;
        counts.write_s += std::chrono::duration<double>(time).count();
    }

    void round_trip(tier_clock::duration time) {
        std::lock_guard held(mutex);
        counts.round_trip_s = std::chrono::duration<double>(time).count();
    }

  private:
    mutable std::mutex mutex;
    tier_counts        counts;
};

} // namespace atlas
