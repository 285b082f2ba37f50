// Counters and histograms of durations, to which any thread adds in a few nanoseconds, the token loop included. Touches
// atomics only.
//
// Each thread that records has a shard of its own, which it alone writes: no lock, no read-modify-write, no cache line
// shared. Whoever reads adds the shards up. A shard stays when its thread ends, and the next thread goes on with it;
// threads beyond N_OWNED at once share one more, by atomic additions. A thread's shard has the same number in every
// recorder of the process.
//
// Histograms are log-linear, as HdrHistogram's (G. Tene, hdrhistogram.org): each power of two is cut into 8 equal
// buckets. The middle of a bucket is at most 1/16 (6.25 %) from any duration in it.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace atlas {

// The buckets' bounds. The first holds what is not above 2^9 ns, the last what is above 2^42 ns (73 minutes).
struct duration_buckets {
    static constexpr unsigned MIN_OCTAVE = 9;
    static constexpr unsigned MAX_OCTAVE = 42;
    static constexpr unsigned PER_OCTAVE = 8;
    static constexpr size_t   N          = (MAX_OCTAVE - MIN_OCTAVE) * PER_OCTAVE + 2;

    // Of a duration in ns; those below 0 count as 0.
    static size_t index_of(int64_t ns) {
        // a bucket includes its upper bound, as Prometheus's `le` does
        const uint64_t value = ns > 1 ? (uint64_t) ns - 1 : 1;
        if (value >> MIN_OCTAVE == 0) {
            return 0;
        }
        const unsigned octave = 63 - __builtin_clzll(value);
        if (octave >= MAX_OCTAVE) {
            return N - 1;
        }
        return 1 + (octave - MIN_OCTAVE) * PER_OCTAVE + ((value >> (octave - 3)) - PER_OCTAVE);
    }

    // The bound of a bucket in ns, inclusive. The last bucket has none.
    static uint64_t upper_bound(size_t index) {
        const uint64_t octave = MIN_OCTAVE + index / PER_OCTAVE;
        return (PER_OCTAVE + index % PER_OCTAVE) << (octave - 3);
    }
};

static_assert(duration_buckets::PER_OCTAVE == 1 << 3);

// What a histogram holds.
struct duration_counts {
    uint64_t                                  sum_ns = 0;
    std::array<uint64_t, duration_buckets::N> counts = {};
};

// Any thread may call add() and record(). They neither wait nor allocate, except in a thread's first call. A sum that
// is read meanwhile may lack what others record at that moment.
class recorder {
  public:
    static constexpr size_t N_OWNED = 64;

    // is_on: false records nothing and takes no memory.
    recorder(size_t n_counters, size_t n_histograms, bool is_on);

    bool is_on() const { return cells != nullptr; }

    // counter, histogram: from 0, below the numbers given.
    void add(size_t counter, uint64_t n = 1);
    void record(size_t histogram, std::chrono::nanoseconds duration);

    uint64_t        count(size_t counter) const;
    duration_counts read(size_t histogram) const;

  private:
    using cell = std::atomic<uint64_t>;

    struct aligned_delete {
        void operator()(cell * cells) const;
    };

    static constexpr size_t HISTOGRAM_CELLS = duration_buckets::N + 1; // the sum is the last

    const size_t n_counters;
    const size_t n_cells; // of a shard: whole cache lines

    const std::unique_ptr<cell[], aligned_delete> cells; // of all shards

    size_t   histogram_cell(size_t histogram) const { return n_counters + histogram * HISTOGRAM_CELLS; }
    uint64_t sum(size_t index) const;
};

} // namespace atlas
