#include "atlas-log.hpp"
#include "atlas-root-records.hpp"
#include "atlas-seal.hpp"
#include "directory.hpp"
#include "file-descriptor.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <optional>
#include <sstream>
#include <system_error>

namespace atlas {

static constexpr size_t MAX_BYTES   = 1 << 16; // of a file
static constexpr size_t MAX_RECORDS = 4096;

static bool is_root(const std::string & name) { return memory::digest_from_hex(name).has_value(); }

// On one line, whatever a file is called.
static std::string line_of(const char * kind, std::string text) {
    std::replace_if(text.begin(), text.end(), [](unsigned char c) { return c < ' ' || c == 127; }, '?');
    return std::string(kind) + " " + text + "\n";
}

static std::string read_text(const std::string & file) {
    const file_descriptor opened(::open(file.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    std::string           text(MAX_BYTES, '\0');
    const ssize_t         n = opened.is_open() ? ::pread(opened.get(), text.data(), text.size(), 0) : 0;
    text.resize(n > 0 ? (size_t) n : 0);
    return text;
}

static const char SEALED[] = "sealed";

static std::string hex_of(const std::string & bytes) {
    static const char DIGITS[] = "0123456789abcdef";
    std::string       text;
    for (const char byte : bytes) {
        text += DIGITS[(uint8_t) byte >> 4];
        text += DIGITS[(uint8_t) byte & 15];
    }
    return text;
}

static int digit_value(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; }

static std::string bytes_of(const std::string & hex) {
    std::string bytes;
    for (size_t i = 0; i + 1 < hex.size(); i += 2) {
        const int high = digit_value(hex[i]), low = digit_value(hex[i + 1]);
        if (high < 0 || low < 0) {
            return "";
        }
        bytes += (char) (high << 4 | low);
    }
    return bytes;
}

// As they are written: encrypted they are one line.
std::string root_records::closed(const std::string & root, const std::string & lines) const {
    return seal ? std::string(SEALED) + " " + hex_of(seal->seal("root " + root, lines)) + "\n" : lines;
}

// With what its encrypted lines say in their place; of those of another secret, nothing.
std::string root_records::opened(const std::string & root, const std::string & text) const {
    std::string        all;
    std::istringstream lines(text.substr(0, text.rfind('\n') + 1));
    for (std::string line; seal && std::getline(lines, line);) {
        std::string plain;
        if (line.rfind(std::string(SEALED) + " ", 0) != 0) {
            all += line + "\n";
        } else if (seal->unseal("root " + root, bytes_of(line.substr(sizeof(SEALED))), plain) == unsealed::good) {
            all += plain;
        }
    }
    return seal ? all : text;
}

// Whether a line says something to who has no secret.
static bool has_plain_lines(const std::string & text) { return text.find("identity ") != std::string::npos; }

// Puts the text in the place of a file's.
static void replace_text(const std::string & file, const std::string & text) {
    const std::string own = file + "." + std::to_string(::getpid()) + ".tmp";
    bool              is_written;
    {
        const file_descriptor opened(::open(own.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0600));
        is_written = opened.is_open() && ::write(opened.get(), text.data(), text.size()) == (ssize_t) text.size() &&
                     ::fsync(opened.get()) == 0;
    }
    if (!is_written || ::rename(own.c_str(), file.c_str()) != 0) {
        logf(LogLevel::WARN, "cannot encrypt %s: %s; the next start tries it again", file.c_str(),
             std::strerror(errno));
        ::unlink(own.c_str());
    }
}

// A line without its end was cut off by a crash, and one of another kind is of a later version: both say nothing.
static std::optional<root_record> parse(const std::string & root, const std::string & text) {
    root_record        record;
    std::istringstream lines(text.substr(0, text.rfind('\n') + 1));
    for (std::string line; std::getline(lines, line);) {
        const size_t      space = line.find(' ');
        const std::string kind  = line.substr(0, space);
        const std::string value = space == std::string::npos ? "" : line.substr(space + 1);
        if (kind == "identity") {
            record.identity = value;
        } else if (kind == "model") {
            record.model = value;
        } else if (kind == "files") {
            record.files = value;
        } else if (kind == "settings") {
            record.settings = value;
        } else if (kind == "environment") {
            record.environments.push_back(value);
        }
    }
    record.root = root;
    return is_root(record.identity) ? std::optional(std::move(record)) : std::nullopt;
}

std::vector<root_record> root_records::read() const {
    std::vector<root_record> found;
    if (path.empty()) {
        return found;
    }
    try {
        memory::for_names_in(path, [&](const std::string & name) {
            const std::string stored = is_root(name) ? read_text(path + "/" + name) : "";
            const std::string text   = opened(name, stored);
            auto              record = is_root(name) ? parse(name, text) : std::nullopt;
            if (record && seal && has_plain_lines(stored)) {
                replace_text(path + "/" + name, closed(name, text));
            }
            if (record) {
                found.push_back(std::move(*record));
            }
            return found.size() < MAX_RECORDS;
        });
    } catch (const std::system_error &) { // there are none yet
    }
    return found;
}

void root_records::add(const root_record & record) const {
    if (path.empty()) {
        return;
    }
    const std::string file = path + "/" + record.root;
    std::string       why;
    try {
        memory::make_directories(path, false);
        // the line feed first, as the last line may have been cut off by a crash
        std::string lines = line_of("identity", record.identity) + line_of("model", record.model) +
                            line_of("files", record.files) + line_of("settings", record.settings);
        for (const std::string & environment : record.environments) {
            lines += line_of("environment", environment);
        }
        const std::string     text  = "\n" + closed(record.root, lines);
        const int             flags = O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
        const file_descriptor opened(::open(file.c_str(), flags, 0600));
        struct stat           info;
        const bool            is_usable = opened.is_open() && ::fstat(opened.get(), &info) == 0;
        if (is_usable && (!S_ISREG(info.st_mode) || info.st_size + text.size() > MAX_BYTES)) {
            why = "it is no regular file, or has become too large; remove it";
        } else if (!is_usable || ::write(opened.get(), text.data(), text.size()) != (ssize_t) text.size()) {
            why = std::strerror(errno);
        }
    } catch (const std::runtime_error & error) { // of the system, or it has no random bytes
        why = error.what();
    }
    if (!why.empty()) {
        logf(LogLevel::WARN, "cannot write %s: %s; the next start does not know which state is its own", file.c_str(),
             why.c_str());
    }
}

} // namespace atlas
