#include "metrics-formats.hpp"

#include <nlohmann/json.hpp>

#include <charconv>
#include <cmath>
#include <cstdlib>
#include <string_view>

namespace atlas {

namespace {

using json = nlohmann::ordered_json;

json sample_json(const metric_sample & sample) {
    if (sample.buckets.empty()) {
        return {{"labels", sample.labels}, {"value", sample.value}};
    }
    return {{"labels", sample.labels}, {"sum", sample.sum}, {"count", sample.count}, {"buckets", sample.buckets}};
}

// The text with what would end a line or a label written in its place, and valid as UTF-8.
std::string escaped(const std::string & text, bool has_quotes) {
    const auto  dumped = json(text).dump(-1, ' ', false, json::error_handler_t::replace);
    std::string result;
    for (const char c : json::parse(dumped).get<std::string>()) {
        if (c == '\n') {
            result += "\\n";
            continue;
        }
        if (c == '\\' || (c == '"' && has_quotes)) {
            result += '\\';
        }
        result += c;
    }
    return result;
}

// name="value" of each, with commas between.
std::string labels_text(const std::map<std::string, std::string> & labels) {
    std::string text;
    for (const auto & [name, value] : labels) {
        text += (text.empty() ? "" : ",") + name + "=\"" + escaped(value, true) + '"';
    }
    return text;
}

void add_line(std::string & to, std::string_view name, std::string_view suffix, std::string_view labels, double value) {
    to.append(name).append(suffix);
    if (!labels.empty()) {
        to.append("{").append(labels).append("}");
    }
    to.append(" ").append(number_text(value)).append("\n");
}

void add_sample(std::string & to, const metric_family & family, const metric_sample & sample) {
    const std::string labels = labels_text(sample.labels);
    if (family.type != "histogram") {
        add_line(to, family.name, "", labels, sample.value);
        return;
    }
    for (const auto & [bound, count] : sample.buckets) {
        auto with_bound  = sample.labels;
        with_bound["le"] = number_text(bound);
        add_line(to, family.name, "_bucket", labels_text(with_bound), (double) count);
    }
    add_line(to, family.name, "_count", labels, (double) sample.count);
    add_line(to, family.name, "_sum", labels, sample.sum);
}

} // namespace

std::string families_json(const std::vector<metric_family> & families) {
    json listed = json::array();
    for (const auto & each : families) {
        json samples = json::array();
        for (const auto & sample : each.samples) {
            samples.push_back(sample_json(sample));
        }
        listed.push_back(
            {{"name", each.name}, {"type", each.type}, {"help", each.help}, {"samples", std::move(samples)}});
    }
    // infinity becomes null
    return json{{"families", std::move(listed)}}.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string number_text(double number) {
    if (!std::isfinite(number)) {
        return std::isnan(number) ? "NaN" : number > 0 ? "+Inf" : "-Inf";
    }
    char       text[64];
    const auto shortest = std::to_chars(text, text + sizeof(text) - 1, number, std::chars_format::scientific);
    *shortest.ptr       = 0;
    const auto exponent =
        std::strtol(std::string_view(text).substr(std::string_view(text).find('e') + 1).data(), nullptr, 10);
    if (exponent < -4 || exponent >= 16) {
        return text;
    }
    std::string fixed(text, std::to_chars(text, text + sizeof(text), number, std::chars_format::fixed).ptr);
    return fixed.find('.') == std::string::npos ? fixed + ".0" : fixed;
}

std::string families_text(const std::vector<metric_family> & families, exposition format) {
    constexpr std::string_view TOTAL = "_total";
    std::string                text;
    for (const auto & family : families) {
        const bool is_cut = format == exposition::openmetrics && family.type == "counter";
        const auto name   = family.name.substr(0, family.name.size() - (is_cut ? TOTAL.size() : 0));
        text += "# HELP " + name + ' ' + escaped(family.help, format == exposition::openmetrics) + '\n';
        text += "# TYPE " + name + ' ' + family.type + '\n';
        for (const auto & sample : family.samples) {
            add_sample(text, family, sample);
        }
    }
    return text;
}

} // namespace atlas
