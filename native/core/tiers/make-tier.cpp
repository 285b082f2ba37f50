#include "make-tier.hpp"

#include "directory-tier.hpp"

#include <stdexcept>

namespace atlas {

std::unique_ptr<tier> make_tier(const std::string & url, size_t) {
    const std::string FILE   = "file://";
    const std::string scheme = url.substr(0, url.find("://"));
    if (scheme == url) {
        throw std::invalid_argument("it is no URL: give one such as file:///mnt/kv");
    }
    if (url.compare(0, FILE.size(), FILE) != 0) {
        throw std::invalid_argument("there is no tier for " + scheme + "://: give file:///PATH");
    }
    std::string path = url.substr(FILE.size());
    while (path.size() > 1 && path.back() == '/') {
        path.pop_back();
    }
    if (path.size() < 2 || path[0] != '/') {
        throw std::invalid_argument(
            "file:// needs an absolute path of a directory, with three slashes: file:///mnt/kv");
    }
    return std::make_unique<directory_tier>(path);
}

} // namespace atlas
