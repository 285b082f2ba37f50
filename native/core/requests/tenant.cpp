#include "atlas-tenant.hpp"

#include "atlas-facts.h"
#include "atlas-log.hpp"
#include "atlas-seal.hpp"
#include "hash/hash.h"
#include "memory/directory.hpp"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <stdexcept>
#include <string_view>
#include <system_error>
#include <utility>

namespace atlas {

static const size_t HASH_BLOCK = 64; // bytes, of SHA-256

static std::string bytes_of_hex(const std::string & hex) {
    std::string bytes;
    for (size_t i = 0; i + 1 < hex.size(); i += 2) {
        bytes += (char) std::stoi(hex.substr(i, 2), nullptr, 16);
    }
    return bytes;
}

static std::string hmac_sha256_hex(const std::string & secret, const std::string & text) {
    std::string inner(HASH_BLOCK, '\x36');
    std::string outer(HASH_BLOCK, '\x5c');
    for (size_t i = 0; i < secret.size(); i++) {
        inner[i] = (char) (inner[i] ^ secret[i]);
        outer[i] = (char) (outer[i] ^ secret[i]);
    }
    inner += text;
    outer += bytes_of_hex(hash_sha256_hex(inner.data(), inner.size()));
    return hash_sha256_hex(outer.data(), outer.size());
}

static std::string random_secret() {
    std::string bytes(SECRET_BYTES, '\0');
    for (size_t n = 0; n < bytes.size();) {
        const ssize_t more = getrandom(&bytes[n], bytes.size() - n, 0);
        if (more < 0 && errno != EINTR) {
            throw std::runtime_error(
                std::string("no random bytes for the secret that keeps API keys apart: getrandom: ") +
                std::strerror(errno));
        }
        n += more > 0 ? (size_t) more : 0;
    }
    return bytes;
}

// Reads the secret, or makes the file with a fresh one where it is missing. Returns an empty text when that fails;
// errno says why.
static std::string read_or_make(const std::string & path) {
    const std::string fresh = random_secret();
    // written under another name first, so that no server reads half a secret; of several servers the first to link it
    // wins
    const std::string own  = path + "." + std::to_string(getpid());
    const int         file = open(own.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
    if (file >= 0) {
        const bool written = write(file, fresh.data(), fresh.size()) == (ssize_t) fresh.size() && fsync(file) == 0;
        close(file);
        if (written && link(own.c_str(), path.c_str()) != 0 && errno != EEXIST) {
            unlink(own.c_str());
            return "";
        }
        unlink(own.c_str());
    }
    std::ifstream stored(path, std::ios::binary);
    std::string   secret(SECRET_BYTES, '\0');
    stored.read(&secret[0], (std::streamsize) secret.size());
    return stored.gcount() == (std::streamsize) secret.size() ? secret : "";
}

bool is_same_key(const std::string & known, const std::string & presented) {
    unsigned char differing = known.size() == presented.size() ? 0 : 1;
    for (size_t i = 0; i < presented.size(); i++) {
        differing |= (unsigned char) (presented[i] ^ (known.empty() ? 1 : known[i % known.size()]));
    }
    return differing == 0;
}

tenants::tenants(tenant_options options) : opts(std::move(options)) {
    if (!opts.is_separated && !opts.has_names) {
        return;
    }
    const std::string path = opts.directory + "/tenant-secret";
    if (opts.fleet) {
        secret = derive_key(*opts.fleet, "tenants").text();
        if (!opts.directory.empty() && access(path.c_str(), F_OK) == 0) {
            said = "Clients' names come from shared_secret_file now: what was kept under " + opts.directory +
                   " by those of tenant-secret is not found, and found again without shared_secret_file. Remove " +
                   path + " where you need it no more.";
        }
        return;
    }
    if (opts.directory.empty()) {
        secret = random_secret();
        return;
    }
    std::string problem;
    try {
        memory::make_directories(opts.directory, true);
        secret  = read_or_make(path);
        problem = std::strerror(errno);
        memory::sync_directory(opts.directory);
    } catch (const std::system_error & error) {
        problem = error.what();
    }
    if (secret.empty()) {
        logf(LogLevel::ERROR,
             "cannot read or make %s: %s; until that is mended and the server restarted, clients find nothing of what "
             "they kept before",
             path.c_str(), problem.c_str());
        secret = random_secret();
    }
}

static constexpr std::string_view NAMED("\0name:", 6); // begins what no key can be, as headers have no zero bytes

std::string tenants::name_of(const std::string & account) {
    return account.compare(0, NAMED.size(), NAMED) == 0 ? account.substr(NAMED.size()) : "";
}

identity tenants::named(const std::string & name, bool is_admin) const {
    const std::string account = std::string(NAMED) + name;
    return {hmac_sha256_hex(secret, account).substr(0, ATLAS_TENANT_DIGITS), is_admin, account, false};
}

identity tenants::identify(const std::string & key) const {
    const std::string account   = opts.has_keys ? key : "";
    const bool        has_admin = !opts.admin_key.empty();
    if (has_admin && is_same_key(opts.admin_key, key)) {
        return {"", true, account, false};
    }
    const bool is_admin = !has_admin && opts.all_are_admin;
    if (!opts.is_separated || key.empty()) {
        return {"", is_admin, account, false};
    }
    return {hmac_sha256_hex(secret, key).substr(0, ATLAS_TENANT_DIGITS), is_admin, account, false};
}

} // namespace atlas
