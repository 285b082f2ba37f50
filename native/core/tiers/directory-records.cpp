#include "directory-records.hpp"

#include "atlas-record-tier.hpp"
#include "whole-file.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

namespace atlas {

namespace fs = std::filesystem;

static const char RECORDS[] = "/records", NAMES[] = "/names";

static bool is_part(std::string_view text) {
    return !text.empty() && text.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789.") == std::string_view::npos &&
           text.front() != '.';
}

std::string record_file(const std::string & root, const std::string & key) {
    constexpr size_t  N_DIGITS = 64;
    const std::string no_owner = record_key("", "");
    const size_t      n_first  = no_owner.size() - 1;
    if (key.compare(0, n_first, no_owner, 0, n_first) != 0 || key.size() < n_first + N_DIGITS + 2) {
        return "";
    }
    const std::string owner = key.substr(n_first, N_DIGITS), part = key.substr(n_first + N_DIGITS + 1);
    if (!is_record_name(owner) || !is_part(part)) {
        return "";
    }
    return root + RECORDS + "/" + owner.substr(0, 2) + "/" + owner + "/" + part;
}

std::string name_file(const std::string & root, const std::string & set, const std::string & name) {
    return root + NAMES + "/" + set.substr(set.rfind(':') + 1) + "/" + name.substr(0, 2) + "/" + name;
}

// Those that are missing between the root and a file.
static void make_parents(const std::string & root, const std::string & target) {
    std::string at = root;
    for (const auto & part : fs::path(target.substr(root.size() + 1)).parent_path()) {
        at += "/" + part.string();
        make_directory(at);
    }
}

// Calls place(file) with a file that has the value, and once more with its directories made where it returns false for want
// of one. Returns what it returned last, with errno.
template <typename F>
static bool write_and(const std::string & root, const std::string & target, std::string_view value, bool sync_each,
                      F place) {
    make_directory(root + "/tmp");
    temporary_file file(root + "/tmp");
    file.write(value.data(), value.size(), 0);
    if (sync_each) {
        file.sync();
    }
    if (place(file)) {
        return true;
    }
    if (errno != ENOENT) {
        return false;
    }
    make_parents(root, target);
    return place(file);
}

bool create_record(const std::string & root, const std::string & target, std::string_view value, bool sync_each) {
    if (write_and(root, target, value, sync_each, [&](temporary_file & file) { return file.link(target); })) {
        return true;
    }
    const int code = errno;
    if (code == EPERM || code == ENOTSUP || code == EMLINK) {
        throw tier_error(tier_failure::broken, "the file system of " + root +
                                                   " has no hard links, by which servers agree who was first: "
                                                   "sessions need another one");
    }
    if (code != EEXIST) {
        fail_on_file("make", target, code);
    }
    return false;
}

void replace_record(const std::string & root, const std::string & target, std::string_view value, bool sync_each) {
    if (!write_and(root, target, value, sync_each, [&](temporary_file & file) { return file.rename(target); })) {
        fail_on_file("rename to", target, errno);
    }
}

std::vector<std::string> names_in(const std::string & root, const std::string & set, const std::string & after,
                                  size_t n_most) {
    constexpr int            N_DIRECTORIES = 256;
    static const char        DIGITS[]      = "0123456789abcdef";
    const std::string        base          = root + NAMES + "/" + set.substr(set.rfind(':') + 1) + "/";
    std::vector<std::string> found;
    for (int i = 0; i < N_DIRECTORIES && found.size() < n_most; i++) {
        const std::string first = {DIGITS[i / 16], DIGITS[i % 16]};
        if (first < after.substr(0, 2)) {
            continue;
        }
        const size_t    begin = found.size();
        std::error_code ignored;
        for (fs::directory_iterator at(base + first, ignored), end; !ignored && at != end; at.increment(ignored)) {
            std::string name = at->path().filename();
            if (is_record_name(name) && name > after) {
                found.push_back(std::move(name));
            }
        }
        std::sort(found.begin() + (std::ptrdiff_t) begin, found.end());
    }
    found.resize(std::min(found.size(), n_most));
    return found;
}

} // namespace atlas
