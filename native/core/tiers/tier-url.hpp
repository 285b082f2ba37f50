// Where a tier is, as a URL of the settings. The forms:
//   valkey://USER:PASSWORD@HOST:PORT/DB      also redis://; several HOST:PORT, or ?cluster=yes: a cluster
//   valkeys://…?ca=FILE&cert=FILE&key=FILE   the same over TLS, also rediss://
//   file:///PATH
//   s3://BUCKET/PREFIX?endpoint=URL&region=NAME
// Parts are percent-encoded where they have characters of a URL's own. No error shows a part that may be a password.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace atlas {

struct tier_host {
    std::string name; // without the brackets of an IPv6 address
    uint16_t    port = 0;
};

// "name:port", as URLs have it.
std::string text_of(const tier_host & host);

struct tier_url {
    std::string                        scheme; // "valkey", "valkeys", "file" or "s3"
    std::string                        user, password; // decoded; empty: none
    std::vector<tier_host>             hosts; // of valkey and valkeys: one at least
    std::string                        bucket; // of s3
    std::string                        path; // decoded, with the slash that it begins with, or empty
    std::map<std::string, std::string> options; // decoded; only those that the scheme knows

    // For logs: without user, password and options.
    std::string address() const;

    // Whether an option is `yes`. Throws std::invalid_argument if it is neither `yes` nor `no`.
    bool flag(const std::string & option, bool otherwise) const;

    // Throws std::invalid_argument if it is no number from 1 to most.
    size_t number(const std::string & option, size_t otherwise, size_t most) const;

    std::string text(const std::string & option, const std::string & otherwise = "") const;

    // The number behind the slash, 0 without one. Throws std::invalid_argument.
    int database() const;

    // "<address>: <problem>; the form is <form>", as an error that a user of the URL sees.
    [[noreturn]] void refuse(const std::string & problem) const;
};

// Throws std::invalid_argument, which names the fault and shows the right form.
tier_url parse_tier_url(const std::string & text);

} // namespace atlas
