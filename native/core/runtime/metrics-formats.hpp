// Families of metrics, and the formats that they are shown in. Touches nothing; any thread.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace atlas {

// Of a histogram, `buckets` has each upper bound, rising up to infinity, with the count of all up to it; sum and count
// go with them, and value is not used.
struct metric_sample {
    std::map<std::string, std::string>       labels;
    double                                   value   = 0; // may be infinite
    double                                   sum     = 0;
    uint64_t                                 count   = 0;
    std::vector<std::pair<double, uint64_t>> buckets = {};
};

struct metric_family {
    std::string                name; // Prometheus's; of a counter it ends in _total
    std::string                type; // counter, gauge or histogram
    std::string                help; // one line
    std::vector<metric_sample> samples = {};
};

// The answer to ATLAS_QUERY_METRICS, which atlas-abi.h describes.
std::string families_json(const std::vector<metric_family> & families);

enum class exposition { prometheus, openmetrics };

// Prometheus's text 0.0.4, or OpenMetrics 1.0.0 without the "# EOF" at its end: others may add to it. What is not UTF-8
// is replaced by U+FFFD.
std::string families_text(const std::vector<metric_family> & families, exposition format);

// A number as the formats write it, and as Python's repr() does: bounds of buckets are labels, so a bound has to keep
// its text.
std::string number_text(double number);

} // namespace atlas
