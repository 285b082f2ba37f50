// What it costs the token loop to copy one block of state out of a context, learned from measured times. On the CPU that is a
// millisecond or two. On a device each tensor is a round trip, and where V is transposed each row of it is one: then it may
// take seconds. Touches no lock; one thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

namespace atlas {

class step_cost {
  public:
    // So long nobody who reads a stream should have to wait, in seconds.
    static constexpr double LONG_S = 0.05;

    // A measured step, in seconds. One that is shorter than a block can only take less: a short time says nothing.
    // Times are noisy upwards, so that of two in a row the shorter counts, and a shorter one counts more than a longer one.
    // Returns true when steps are found to be long for the first time.
    bool add(double measured, bool is_block) {
        const double seconds = std::min(measured, std::exchange(last, measured));
        if (mean == 0) {
            mean = seconds;
        } else if (seconds > mean) {
            mean += (std::min(seconds, 2 * mean) - mean) / 5;
        } else if (is_block) {
            mean = (mean + seconds) / 2;
        }
        return is_long() && !std::exchange(was_long, true);
    }

    // 0: nothing was measured yet.
    double seconds() const { return mean; }

    // Whether a step is too long to be taken while somebody waits for tokens.
    bool is_long() const { return mean > LONG_S; }

    // Whether a step takes clearly longer than computing its tokens anew, which takes compute_s seconds (0: not known). Now
    // and then the answer is no all the same, so that a change is noticed.
    bool is_worthless(double compute_s) {
        const bool worthless = compute_s > 0 && is_long() && mean > 2 * compute_s;
        return worthless && ++n_worthless % TRY_AGAIN != 0;
    }

  private:
    static constexpr uint64_t TRY_AGAIN = 8;

    double   mean        = 0;
    double   last        = 0;
    bool     was_long    = false;
    uint64_t n_worthless = 0;
};

} // namespace atlas
