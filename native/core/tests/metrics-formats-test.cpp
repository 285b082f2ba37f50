#include "cases.hpp"
#include "metrics-formats.hpp"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

using atlas::exposition;
using atlas::families_text;
using atlas::metric_family;
using atlas::number_text;

// As Python's repr(): series of Prometheus are told apart by the text of their bounds.
CASE(metrics_formats_write_numbers_as_python_does) {
    CHECK(number_text(0) == "0.0");
    CHECK(number_text(-3) == "-3.0");
    CHECK(number_text(1.024e-06) == "1.024e-06");
    CHECK(number_text(0.0001) == "0.0001");
    CHECK(number_text(0.00009) == "9e-05");
    CHECK(number_text(0.000131072) == "0.000131072");
    CHECK(number_text(0.1) == "0.1");
    CHECK(number_text(2.01326592) == "2.01326592");
    CHECK(number_text(4398.046511104) == "4398.046511104");
    CHECK(number_text(1234567890123456) == "1234567890123456.0");
    CHECK(number_text(1e16) == "1e+16");
    CHECK(number_text(INFINITY) == "+Inf" && number_text(-INFINITY) == "-Inf");
    CHECK(number_text(std::numeric_limits<double>::quiet_NaN()) == "NaN");
}

CASE(metrics_formats_of_a_counter) {
    const std::vector<metric_family> families = {
        {"a_total", "counter", "A \"b\" \\ c.", {{{{"x", "1"}, {"y", "2"}}, 3}, {{}, 4.5}}}};
    CHECK(families_text(families, exposition::prometheus) == "# HELP a_total A \"b\" \\\\ c.\n"
                                                             "# TYPE a_total counter\n"
                                                             "a_total{x=\"1\",y=\"2\"} 3.0\n"
                                                             "a_total 4.5\n");
    CHECK(families_text(families, exposition::openmetrics) == "# HELP a A \\\"b\\\" \\\\ c.\n"
                                                              "# TYPE a counter\n"
                                                              "a_total{x=\"1\",y=\"2\"} 3.0\n"
                                                              "a_total 4.5\n");
}

CASE(metrics_formats_escape_labels) {
    const std::vector<metric_family> families = {{"a", "gauge", "A.", {{{{"x", "q\"b\\n\nu\xff\x01"}}, INFINITY}}}};
    for (const auto format : {exposition::prometheus, exposition::openmetrics}) {
        CHECK(families_text(families, format) == "# HELP a A.\n"
                                                 "# TYPE a gauge\n"
                                                 "a{x=\"q\\\"b\\\\n\\nu\xef\xbf\xbd\x01\"} +Inf\n");
    }
}

CASE(metrics_formats_of_a_histogram) {
    const std::vector<metric_family> families = {
        {"h", "histogram", "H.", {{{{"zone", "z"}}, 0, 1.5, 3, {{0.5, 1}, {INFINITY, 3}}}}}};
    for (const auto format : {exposition::prometheus, exposition::openmetrics}) {
        CHECK(families_text(families, format) == "# HELP h H.\n"
                                                 "# TYPE h histogram\n"
                                                 "h_bucket{le=\"0.5\",zone=\"z\"} 1.0\n"
                                                 "h_bucket{le=\"+Inf\",zone=\"z\"} 3.0\n"
                                                 "h_count{zone=\"z\"} 3.0\n"
                                                 "h_sum{zone=\"z\"} 1.5\n");
    }
}
