#include "s3-account.hpp"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <fstream>

namespace atlas::s3 {

namespace {

bool is_plain(unsigned char c) { return c < 0x80 && (std::isalnum(c) || c == '.' || c == '-'); }

// The first that is set.
std::string environment(std::initializer_list<const char *> names) {
    for (const char * name : names) {
        if (const char * value = std::getenv(name); value && *value) {
            return value;
        }
    }
    return "";
}

std::string trimmed(const std::string & text) {
    const size_t begin = text.find_first_not_of(" \t\r");
    return begin == std::string::npos ? "" : text.substr(begin, text.find_last_not_of(" \t\r") + 1 - begin);
}

// A file as other programs for S3 have it: lines of `name = value`, of which those of the first profile count.
void read_keys(const tier_url & url, const std::string & path, account & of) {
    std::ifstream file(path);
    if (!file) {
        url.refuse("the option 'keys' names no readable file: '" + path + "'");
    }
    int n_profiles = 0;
    for (std::string line; std::getline(file, line) && n_profiles < 2;) {
        line = trimmed(line);
        n_profiles += !line.empty() && line[0] == '[';
        const size_t equals = line.find('=');
        if (n_profiles > 1 || equals == std::string::npos) {
            continue;
        }
        const std::string name = trimmed(line.substr(0, equals)), value = trimmed(line.substr(equals + 1));
        std::string *     target = name == "aws_access_key_id"       ? &of.key_id
                                   : name == "aws_secret_access_key" ? &of.secret
                                   : name == "aws_session_token"     ? &of.token
                                                                     : nullptr;
        if (target) {
            *target = value;
        }
    }
    if (of.key_id.empty() || of.secret.empty()) {
        url.refuse(
            "the file of the option 'keys' has to have lines aws_access_key_id = … and aws_secret_access_key = …");
    }
}

void check_prefix(const tier_url & url) {
    const std::string path = url.path + "/";
    const bool        has_others =
        !std::all_of(path.begin(), path.end(), [](unsigned char c) { return is_plain(c) || c == '_' || c == '/'; });
    if (has_others || path.find("//", 1) != std::string::npos || path.find("/.") != std::string::npos) {
        url.refuse("a prefix is made of A-Z a-z 0-9 . _ - and /, without empty parts and parts that begin with a dot");
    }
}

} // namespace

account::account(const tier_url & url)
    : region(url.text("region", environment({"AWS_REGION", "AWS_DEFAULT_REGION"}))), ca(url.text("ca")),
      is_verified(url.flag("verify", true)) {
    region = region.empty() ? "us-east-1" : region;
    if (!std::all_of(region.begin(), region.end(), is_plain)) {
        url.refuse("the option 'region' is a name as eu-central-1");
    }
    std::string endpoint = url.text("endpoint", environment({"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"}));
    endpoint             = endpoint.empty() ? "https://s3." + region + ".amazonaws.com" : endpoint;
    if (endpoint.back() == '/') {
        endpoint.pop_back();
    }
    const bool is_http = endpoint.compare(0, 7, "http://") == 0 || endpoint.compare(0, 8, "https://") == 0;
    if (!is_http || endpoint.find_first_of("@?# ") != std::string::npos || endpoint.back() == '/') {
        url.refuse("the option 'endpoint' is a URL as https://HOST:PORT");
    }
    check_prefix(url);
    if (const std::string file = url.text("keys"); !file.empty()) {
        read_keys(url, file, *this);
    } else {
        key_id = environment({"AWS_ACCESS_KEY_ID"});
        secret = environment({"AWS_SECRET_ACCESS_KEY"});
        token  = environment({"AWS_SESSION_TOKEN"});
    }
    if (key_id.empty() || secret.empty()) {
        url.refuse(
            "there are no keys: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, or name a file "
            "that has them by ?keys=");
    }
    bucket = endpoint + "/" + url.bucket;
    base   = bucket + (url.path.empty() ? "" : url.path) + (url.path.empty() || url.path.back() != '/' ? "/" : "");
}

std::string account::name_of(const std::string & key) const { return url_of(key).substr(bucket.size() + 1); }

// In the order in which parameters are signed. Names have nothing to escape but slashes.
std::string account::list_url(const std::string & prefix, const std::string & after, size_t n_most) const {
    const auto escaped = [](const std::string & name) {
        std::string text;
        for (const char c : name) {
            text += c == '/' ? "%2F" : std::string(1, c);
        }
        return text;
    };
    return bucket + "/?list-type=2&max-keys=" + std::to_string(n_most) + "&prefix=" + escaped(prefix) +
           (after.empty() ? "" : "&start-after=" + escaped(after));
}

std::string account::url_of(const std::string & key) const {
    static constexpr char DIGITS[] = "0123456789ABCDEF";
    std::string           name;
    for (const unsigned char c : key) {
        if (is_plain(c) && !(c == '.' && name.empty())) {
            name += (char) c;
        } else {
            name += '_';
            name += DIGITS[c >> 4];
            name += DIGITS[c & 15];
        }
    }
    return base + name;
}

} // namespace atlas::s3
