/// @file
/// Log lines of ATLAS. The library writes to no log by itself: the program that embeds it gives a sink. Any thread may
/// log.
#pragma once

#include <string>

namespace atlas {

/// How much a record matters; the values are those of atlas-abi.h.
enum class LogLevel {
    DEBUG = 1, ///< what helps to find out why something is as it is
    INFO  = 2, ///< what goes on
    WARN  = 3, ///< what is not as it should be, and is gone on with
    ERROR = 4, ///< what could not be done
};

/// What a record looks like.
enum class LogFormat {
    TEXT, ///< the message alone
    JSON, ///< one line, an object
};

/// Receives one record, without prefix or final newline, from any thread. In the format JSON the record is one line, an
/// object with time (UTC, RFC 3339), level and message, and the sink writes it as it is.
/// It must not throw, nor log. `text` is the caller's, and valid until the sink returns.
using log_sink = void (*)(LogLevel level, LogFormat format, const std::string & text);

/// Where records go from now on, of all servers of the process; null: nowhere, as before the first call. A thread that is
/// logging may still call the sink before. AtlasServer::initialize() sets llama.cpp's log. Any thread; never throws.
void set_log_sink(log_sink sink);

/// Records below it are dropped; INFO before the first call. AtlasServer::initialize() sets it. Any thread; never throws.
void set_log_level(LogLevel least);

/// TEXT before the first call. AtlasServer::initialize() sets it. Any thread; never throws.
void set_log_format(LogFormat format);

/// Whether a record of this level would be written. Any thread; never throws.
bool is_logged(LogLevel level);

/// members: what the JSON object has besides, as "\"name\":value,..."; the format TEXT leaves it out.
/// Any thread. Throws std::bad_alloc alone.
void log(LogLevel level, const std::string & text, const std::string & members = "");

/// The same of what printf() would print, cut after 1,023 bytes.
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
void logf(LogLevel level, const char * format, ...);

} // namespace atlas
