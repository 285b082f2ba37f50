#include "tier-url.hpp"

#include <algorithm>
#include <cctype>
#include <set>
#include <stdexcept>
#include <string_view>

namespace atlas {

namespace {

constexpr uint16_t VALKEY_PORT  = 6379;
constexpr size_t   MAX_DATABASE = 1 << 20;

const char * form_of(const std::string & scheme) {
    return scheme == "s3"        ? "s3://BUCKET/PREFIX?endpoint=https://HOST&region=NAME"
           : scheme == "file"    ? "file:///DIRECTORY"
           : scheme == "valkeys" ? "valkeys://USER:PASSWORD@HOST:6379/0?ca=FILE"
                                 : "valkey://USER:PASSWORD@HOST:6379/0";
}

// Redis's names are Valkey's, as they speak the same.
std::string scheme_of(std::string name) {
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    return name == "redis" ? "valkey" : name == "rediss" ? "valkeys" : name;
}

std::set<std::string> options_of(const std::string & scheme) {
    if (scheme == "s3") {
        return {"endpoint", "region", "keys", "connections", "ca", "verify"};
    }
    if (scheme == "valkey") {
        return {"cluster", "connections"};
    }
    if (scheme == "valkeys") {
        return {"cluster", "connections", "ca", "cert", "key", "name", "verify"};
    }
    return {};
}

int digit_of(char c) { return c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10; }

std::string decode(const tier_url & url, std::string_view text) {
    std::string decoded;
    for (size_t i = 0; i < text.size(); i++) {
        if (text[i] != '%') {
            decoded += text[i];
            continue;
        }
        if (i + 2 >= text.size() || !std::isxdigit((unsigned char) text[i + 1]) ||
            !std::isxdigit((unsigned char) text[i + 2])) {
            url.refuse("a % has to be followed by two hexadecimal digits; one that is meant itself is written %25");
        }
        decoded += (char) (digit_of(text[i + 1]) * 16 + digit_of(text[i + 2]));
        i += 2;
    }
    if (decoded.find('\0') != std::string::npos) {
        url.refuse("there is no place for %00");
    }
    return decoded;
}

bool is_number(std::string_view text, size_t least, size_t most, size_t & value) {
    if (text.empty() || text.size() > 9 ||
        !std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isdigit(c); })) {
        return false;
    }
    value = std::stoul(std::string(text));
    return value >= least && value <= most;
}

// Text up to the first `end`, which goes with it.
std::string_view cut(std::string_view & rest, char end) {
    const size_t           at   = rest.find(end);
    const std::string_view part = rest.substr(0, at);
    rest.remove_prefix(at == std::string_view::npos ? rest.size() : at + 1);
    return part;
}

tier_host parse_host(const tier_url & url, std::string_view text) {
    tier_host        host;
    std::string_view port;
    bool             has_port = false;
    if (!text.empty() && text[0] == '[') {
        const size_t end = text.find(']');
        if (end == std::string_view::npos || (end + 1 < text.size() && text[end + 1] != ':')) {
            url.refuse("an IPv6 address is written in brackets, as [::1]:6379");
        }
        host.name = text.substr(1, end - 1);
        has_port  = end + 1 < text.size();
        port      = has_port ? text.substr(end + 2) : "";
    } else {
        const size_t colon = text.find(':');
        if (colon != text.rfind(':')) {
            url.refuse("an IPv6 address is written in brackets, as [::1]:6379");
        }
        host.name = decode(url, text.substr(0, colon));
        has_port  = colon != std::string_view::npos;
        port      = has_port ? text.substr(colon + 1) : "";
    }
    size_t number = VALKEY_PORT;
    if (host.name.empty()) {
        url.refuse("a host is missing");
    }
    if (has_port && !is_number(port, 1, 65535, number)) {
        url.refuse("what is behind a host's colon is no port from 1 to 65535"); // it may be a password without an @
    }
    host.port = (uint16_t) number;
    return host;
}

void parse_hosts(tier_url & url, std::string_view authority) {
    const size_t at = authority.rfind('@');
    if (at != std::string_view::npos) {
        std::string_view user = authority.substr(0, at);
        url.user              = decode(url, cut(user, ':'));
        url.password          = decode(url, user);
        authority.remove_prefix(at + 1);
        if (!url.user.empty() && url.password.empty()) {
            url.refuse("a user without a password; a password alone is written :PASSWORD@HOST");
        }
    }
    std::vector<tier_host> hosts;
    do {
        hosts.push_back(parse_host(url, cut(authority, ',')));
    } while (!authority.empty());
    url.hosts = std::move(hosts);
}

void parse_bucket(tier_url & url, std::string_view authority) {
    if (authority.find('@') != std::string_view::npos) {
        url.refuse("keys are not part of the URL; they are taken from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
                   "from the file that ?keys= names");
    }
    if (authority.size() < 3 || authority.size() > 63 ||
        !std::all_of(authority.begin(), authority.end(),
                     [](unsigned char c) { return std::islower(c) || std::isdigit(c) || c == '-' || c == '.'; })) {
        url.refuse("a bucket's name has 3 to 63 of a-z 0-9 - .");
    }
    url.bucket = authority;
}

void parse_options(tier_url & url, std::string_view query) {
    const auto known = options_of(url.scheme);
    while (!query.empty()) {
        std::string_view  option = cut(query, '&');
        const std::string name   = decode(url, cut(option, '='));
        if (!known.count(name)) {
            if (options_of(url.scheme + "s").count(name)) {
                url.refuse("the option '" + name + "' is for TLS, which is " + url.scheme + "s://");
            }
            std::string names;
            for (const auto & one : known) {
                names += (names.empty() ? "" : ", ") + one;
            }
            url.refuse("no option has that name" + (names.empty() ? "" : "; there are " + names)); // it may be anything
        }
        if (!url.options.emplace(name, decode(url, option)).second) {
            url.refuse("the option '" + name + "' is given twice");
        }
    }
}

void parse_authority(tier_url & url, std::string_view authority, std::string_view rest) {
    if (url.scheme == "s3") {
        parse_bucket(url, authority);
    } else if (url.scheme == "file") {
        if (!authority.empty()) {
            url.refuse("the path of a directory begins with a slash, so there are three");
        }
    } else if (rest.find('@') != std::string_view::npos) {
        url.refuse("a password with one of / ? # @ : % has to be percent-encoded, as %2F for a slash");
    } else {
        parse_hosts(url, authority);
    }
}

} // namespace

std::string text_of(const tier_host & host) {
    const bool is_v6 = host.name.find(':') != std::string::npos;
    return (is_v6 ? "[" + host.name + "]" : host.name) + ":" + std::to_string(host.port);
}

std::string tier_url::address() const {
    std::string address = scheme + "://" + bucket;
    for (const auto & host : hosts) {
        address += (&host == hosts.data() ? "" : ",") + text_of(host);
    }
    return address + path;
}

void tier_url::refuse(const std::string & problem) const {
    throw std::invalid_argument(address() + ": " + problem + "; the form is " + form_of(scheme));
}

bool tier_url::flag(const std::string & option, bool otherwise) const {
    const std::string value = text(option, otherwise ? "yes" : "no");
    if (value != "yes" && value != "no") {
        refuse("the option '" + option + "' is yes or no");
    }
    return value == "yes";
}

size_t tier_url::number(const std::string & option, size_t otherwise, size_t most) const {
    size_t value = otherwise;
    if (const auto given = options.find(option); given != options.end() && !is_number(given->second, 1, most, value)) {
        refuse("the option '" + option + "' is a number from 1 to " + std::to_string(most));
    }
    return value;
}

std::string tier_url::text(const std::string & option, const std::string & otherwise) const {
    const auto given = options.find(option);
    return given == options.end() ? otherwise : given->second;
}

int tier_url::database() const {
    size_t number = 0;
    if (path.size() > 1 && !is_number(path.substr(1), 0, MAX_DATABASE, number)) {
        refuse("what is behind the slash is no number of a database");
    }
    return (int) number;
}

tier_url parse_tier_url(const std::string & text) {
    const size_t colon = text.find("://");
    tier_url     url;
    url.scheme = scheme_of(text.substr(0, colon));
    if (colon == std::string::npos ||
        (url.scheme != "valkey" && url.scheme != "valkeys" && url.scheme != "file" && url.scheme != "s3")) {
        throw std::invalid_argument(
            std::string("a shared memory's URL begins with valkey://, valkeys:// (TLS), redis://, "
                        "rediss://, file:// or s3://; as ") +
            form_of("valkey") + " or " + form_of("file"));
    }
    std::string_view rest = std::string_view(text).substr(colon + 3);
    if (rest.find('#') != std::string_view::npos) {
        url.refuse("there is no place for a #; one that is part of a password is written %23");
    }
    const size_t           begin     = std::min(rest.find_first_of("/?"), rest.size());
    const std::string_view authority = rest.substr(0, begin);
    rest.remove_prefix(begin);
    parse_authority(url, authority, rest);
    const std::string path = decode(url, cut(rest, '?'));
    if (url.scheme == "file" && path.size() < 2) {
        url.refuse("the directory is missing");
    }
    url.path = path == "/" ? "" : path;
    parse_options(url, rest);
    return url;
}

} // namespace atlas
