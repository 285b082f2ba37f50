#include "atlas-make-tier.hpp"

#include "directory-tier.hpp"

#include <stdexcept>

namespace atlas {

std::unique_ptr<tier> make_tier(const std::string & url, const tier_limits & limits) {
    const std::string FILE   = "file://";
    const std::string scheme = url.substr(0, url.find("://"));
    if (scheme == url) {
        throw std::invalid_argument("there is no scheme in the URL: the form is file:///DIRECTORY");
    }
    if (url.compare(0, FILE.size(), FILE) != 0) {
        throw std::invalid_argument("there is no " + scheme +
                                    ":// that could be shared: the form is file:///DIRECTORY");
    }
    std::string path = url.substr(FILE.size());
    while (path.size() > 1 && path.back() == '/') {
        path.pop_back();
    }
    if (path.size() < 2 || path[0] != '/') {
        throw std::invalid_argument("file:// needs the whole path of a directory: the form is file:///DIRECTORY");
    }
    return std::make_unique<directory_tier>(path, limits.max_value_bytes);
}

} // namespace atlas
