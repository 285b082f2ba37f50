// Families of metrics as they are put together.
#pragma once

#include "atlas-metrics.hpp"
#include "metrics-formats.hpp"

#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace atlas {

// Names and values, in order of names.
using label_list = std::map<std::string, std::string>;

// Which of the bounds are shown: a series is kept for each, so those that nobody needs are left out. per_octave divides 8.
struct shown_bounds {
    unsigned first_octave; // of ns: 10 is about 1 us, 20 1 ms, 30 1 s
    unsigned last_octave;
    unsigned per_octave;
};

class family_list {
  public:
    // The family that add() and add_histogram() add to.
    void begin(const char * name, const char * type, const char * help) { families.push_back({name, type, help}); }

    template <typename T> void add(T value, const label_list & labels = {}) {
        families.back().samples.push_back({labels, (double) value});
    }

    template <typename T> void gauge(const char * name, const char * help, T value) {
        begin(name, "gauge", help);
        add(value);
    }

    template <typename T> void counter(const char * name, const char * help, T value) {
        begin(name, "counter", help);
        add(value);
    }

    void add_histogram(const duration_counts & found, const shown_bounds & shown, const label_list & labels = {}) {
        using all          = duration_buckets;
        const size_t step  = all::PER_OCTAVE / shown.per_octave;
        const size_t last  = (shown.last_octave - all::MIN_OCTAVE) * all::PER_OCTAVE;
        uint64_t     count = 0;
        size_t       next  = 0;

        metric_sample sample;
        for (size_t i = (shown.first_octave - all::MIN_OCTAVE) * all::PER_OCTAVE; i <= last; i += step) {
            for (; next <= i; next++) {
                count += found.counts[next];
            }
            sample.buckets.emplace_back((double) all::upper_bound(i) / 1e9, count);
        }
        for (; next < found.counts.size(); next++) {
            count += found.counts[next];
        }
        sample.buckets.emplace_back(INFINITY, count);
        sample.labels = labels;
        sample.sum    = (double) found.sum_ns / 1e9;
        sample.count  = count;
        families.back().samples.push_back(std::move(sample));
    }

    void histogram(const char * name, const char * help, const duration_counts & found, const shown_bounds & shown) {
        begin(name, "histogram", help);
        add_histogram(found, shown);
    }

    std::vector<metric_family> take() { return std::move(families); }

  private:
    std::vector<metric_family> families;
};

} // namespace atlas
