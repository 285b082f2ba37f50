// Log lines of ATLAS. The library writes to no log by itself: the program that embeds it gives a sink. Any thread may
// log.
#pragma once

#include <string>

namespace atlas {

enum class LogLevel { DEBUG = 1, INFO = 2, WARN = 3, ERROR = 4 }; // values as in atlas-abi.h

enum class LogFormat { TEXT, JSON };

// Receives one record, without prefix or final newline, from any thread. In the format JSON the record is one line, an
// object with time (UTC, RFC 3339), level and message, and the sink writes it as it is.
using log_sink = void (*)(LogLevel level, LogFormat format, const std::string & text);

// These may be called at any time, from any thread. Until a sink is set, records go nowhere.
void set_log_sink(log_sink sink);
void set_log_level(LogLevel least);
void set_log_format(LogFormat format);

// Whether a record of this level would be written.
bool is_logged(LogLevel level);

// members: what the JSON object has besides, as "\"name\":value,..."; the format TEXT leaves it out.
void log(LogLevel level, const std::string & text, const std::string & members = "");

#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
void logf(LogLevel level, const char * format, ...);

} // namespace atlas
