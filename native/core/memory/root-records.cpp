#include "atlas-log.hpp"
#include "atlas-root-records.hpp"
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
            auto record = is_root(name) ? parse(name, read_text(path + "/" + name)) : std::nullopt;
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
        std::string text = "\n" + line_of("identity", record.identity) + line_of("model", record.model) +
                           line_of("files", record.files) + line_of("settings", record.settings);
        for (const std::string & environment : record.environments) {
            text += line_of("environment", environment);
        }
        const int             flags = O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
        const file_descriptor opened(::open(file.c_str(), flags, 0600));
        struct stat           info;
        const bool            is_usable = opened.is_open() && ::fstat(opened.get(), &info) == 0;
        if (is_usable && (!S_ISREG(info.st_mode) || info.st_size + text.size() > MAX_BYTES)) {
            why = "it is no regular file, or has become too large; remove it";
        } else if (!is_usable || ::write(opened.get(), text.data(), text.size()) != (ssize_t) text.size()) {
            why = std::strerror(errno);
        }
    } catch (const std::system_error & error) {
        why = error.what();
    }
    if (!why.empty()) {
        logf(LogLevel::WARN, "cannot write %s: %s; the next start does not know which state is its own", file.c_str(),
             why.c_str());
    }
}

} // namespace atlas
