#include "atlas-secret-key.hpp"

#include "atlas-log.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <stdexcept>

namespace atlas {

static constexpr size_t MAX_FILE_BYTES = 4096;

static const char RIGHT[] =
    "give 32 random bytes, or 64 hexadecimal digits (openssl rand -hex 32), or base64 of 32 bytes "
    "(openssl rand -base64 32)";

secret_key::secret_key(secret_key && other) noexcept : bytes(other.bytes) { wipe(other.bytes.data(), bytes.size()); }

secret_key::~secret_key() { wipe(bytes.data(), bytes.size()); }

void wipe(void * bytes, size_t n_bytes) noexcept {
    volatile uint8_t * at = static_cast<uint8_t *>(bytes);
    while (n_bytes-- > 0) {
        *at++ = 0;
    }
}

bool is_equal_secret(const uint8_t * some, const uint8_t * other, size_t n_bytes) noexcept {
    uint8_t differing = 0;
    for (size_t i = 0; i < n_bytes; i++) {
        differing |= (uint8_t) (some[i] ^ other[i]);
    }
    return differing == 0;
}

namespace {

using key_bytes = std::array<uint8_t, SECRET_BYTES>;

// The value of a digit of base 16 or 64, of both alphabets of the latter; below 0: none.
int digit_of(char c, int base) {
    if (base == 16) {
        const int letter = (c | 0x20) - 'a';
        return c >= '0' && c <= '9' ? c - '0' : letter >= 0 && letter < 6 ? 10 + letter : -1;
    }
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (c >= '0' && c <= '9') {
        return c - '0' + 52;
    }
    return c == '+' || c == '-' ? 62 : c == '/' || c == '_' ? 63 : -1;
}

// Digits of so many bits each; what is left over of the last must be 0.
std::optional<key_bytes> decode(std::string_view digits, int base) {
    const int bits = base == 16 ? 4 : 6;
    key_bytes key  = {};
    size_t    n    = 0;
    uint32_t  held = 0;
    int       have = 0;
    for (const char c : digits) {
        const int value = digit_of(c, base);
        if (value < 0) {
            return std::nullopt;
        }
        held = held << bits | (uint32_t) value;
        have += bits;
        if (have >= 8) {
            if (n == key.size()) {
                return std::nullopt;
            }
            have -= 8;
            key[n++] = (uint8_t) (held >> have);
            held &= (1u << have) - 1;
        }
    }
    return n == key.size() && held == 0 ? std::optional(key) : std::nullopt;
}

bool is_space(char c) { return c == '\n' || c == '\r' || c == ' ' || c == '\t'; }

bool is_text(char c) { return (c >= ' ' && c <= '~') || is_space(c); }

std::optional<key_bytes> decode_any(std::string_view content) {
    if (content.size() == SECRET_BYTES && !std::all_of(content.begin(), content.end(), is_text)) {
        key_bytes key;
        std::memcpy(key.data(), content.data(), key.size());
        return key;
    }
    while (!content.empty() && is_space(content.back())) {
        content.remove_suffix(1);
    }
    while (!content.empty() && is_space(content.front())) {
        content.remove_prefix(1);
    }
    if (content.size() == 2 * SECRET_BYTES) {
        return decode(content, 16);
    }
    if (content.size() == 44 && content.back() == '=') {
        content.remove_suffix(1);
    }
    return content.size() == 43 ? decode(content, 64) : std::nullopt;
}

} // namespace

secret_key parse_key(std::string_view content, const std::string & setting) {
    auto key = decode_any(content);
    if (!key) {
        throw std::invalid_argument(setting + " gives " + std::to_string(content.size()) +
                                    (content.size() == 1 ? " byte" : " bytes") + " that are no key: " + RIGHT);
    }
    if (std::count(key->begin(), key->end(), key->front()) == (ptrdiff_t) key->size()) {
        throw std::invalid_argument(setting + " gives 32 times the same byte, which is no secret: " + RIGHT);
    }
    secret_key made(*key);
    wipe(key->data(), key->size());
    return made;
}

secret_key read_key_file(const std::string & path, const std::string & setting) {
    const std::string where = setting + " " + path;
    const int         file  = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (file < 0) {
        throw std::invalid_argument(where + ": cannot be opened: " + std::strerror(errno));
    }
    struct stat info    = {};
    int         problem = ::fstat(file, &info) == 0 ? 0 : errno;
    std::string content(MAX_FILE_BYTES + 1, '\0');
    size_t      n = 0;
    while (problem == 0 && S_ISREG(info.st_mode) && n < content.size()) {
        const ssize_t more = ::read(file, content.data() + n, content.size() - n);
        problem            = more < 0 && errno != EINTR ? errno : 0;
        if (more == 0) {
            break;
        }
        n += more > 0 ? (size_t) more : 0;
    }
    ::close(file);
    struct wiped {
        std::string & text;
        ~wiped() { wipe(text.data(), text.size()); }
    } const at_the_end{content};
    if (problem != 0) {
        throw std::invalid_argument(where + ": cannot be read: " + std::strerror(problem));
    }
    if (!S_ISREG(info.st_mode)) {
        throw std::invalid_argument(where + ": this is no regular file");
    }
    if ((info.st_mode & 077) != 0) {
        logf(LogLevel::WARN, "%s can be read by other users of this machine; chmod 600 keeps them out", where.c_str());
    }
    return parse_key(std::string_view(content).substr(0, n), where);
}

} // namespace atlas
