// Log lines of ATLAS. The library has no log of its own: whoever embeds it gives a sink.
#pragma once

#include "atlas-config.hpp"

#include <string>

namespace atlas {

// Receives one record, without prefix or final newline, from any thread.
using log_sink = void (*)(LogLevel level, const std::string & text);

// Both may be called at any time, from any thread. Until a sink is set, records go nowhere.
void set_log_sink(log_sink sink);
void set_log_level(LogLevel least);

void log(LogLevel level, const std::string & text);

#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
void logf(LogLevel level, const char * format, ...);

} // namespace atlas
