#include "atlas-log.hpp"

#include <atomic>
#include <cstdarg>
#include <cstdio>

namespace atlas {

static std::atomic<log_sink> sink{nullptr};
static std::atomic<LogLevel> threshold{LogLevel::INFO};

void set_log_sink(log_sink new_sink) { sink = new_sink; }

void set_log_level(LogLevel least) { threshold = least; }

void log(LogLevel level, const std::string & text) {
    if (const log_sink current = sink; current != nullptr && level >= threshold) {
        current(level, text);
    }
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
