#include "atlas-log.hpp"

#include <nlohmann/json.hpp>

#include <atomic>
#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <ctime>

namespace atlas {

static std::atomic<log_sink>  sink{nullptr};
static std::atomic<LogLevel>  threshold{LogLevel::INFO};
static std::atomic<LogFormat> log_format{LogFormat::TEXT};

void set_log_sink(log_sink new_sink) { sink = new_sink; }

void set_log_level(LogLevel least) { threshold = least; }

void set_log_format(LogFormat format) { log_format = format; }

bool is_logged(LogLevel level) { return sink.load() != nullptr && level >= threshold; }

static std::string now_text() {
    using namespace std::chrono;
    const auto        ms      = duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count();
    const std::time_t seconds = (std::time_t) (ms / 1000);
    std::tm           utc     = {};
    gmtime_r(&seconds, &utc);
    char         text[32];
    const size_t n = std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &utc);
    std::snprintf(text + n, sizeof(text) - n, ".%03dZ", (int) (ms % 1000));
    return text;
}

static std::string json_line(LogLevel level, const std::string & text, const std::string & members) {
    using json                        = nlohmann::ordered_json;
    static const char * const NAMES[] = {"debug", "info", "warn", "error"};
    const json                head    = {{"time", now_text()},
                                         {"level", NAMES[static_cast<int>(level) - static_cast<int>(LogLevel::DEBUG)]},
                                         {"message", text}};
    std::string               line    = head.dump(-1, ' ', false, json::error_handler_t::replace);
    line.pop_back();
    return line + (members.empty() ? "" : ",") + members + "}";
}

void log(LogLevel level, const std::string & text, const std::string & members) {
    if (!is_logged(level)) {
        return;
    }
    const LogFormat format = log_format;
    sink.load()(level, format, format == LogFormat::JSON ? json_line(level, text, members) : text);
}

void logf(LogLevel level, const char * format, ...) {
    char    text[1024];
    va_list args;
    va_start(args, format);
    std::vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    log(level, text);
}

} // namespace atlas
