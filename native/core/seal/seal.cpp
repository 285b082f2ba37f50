#include "atlas-seal.hpp"

#include <algorithm>
#include <cstring>
#include <new>
#include <stdexcept>
#include <utility>

#ifdef ATLAS_HAS_OPENSSL
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#endif

namespace atlas {

namespace {

constexpr char     MAGIC[8] = {'A', 'T', 'L', 'A', 'S', 'E', 'A', 'L'};
constexpr uint32_t VERSION  = 1;

enum offset : size_t { AT_MAGIC = 0, AT_VERSION = 8, AT_N_FIRST = 12, AT_ID = 16, AT_SALT = 32 };

constexpr size_t SALT_BYTES = SEAL_HEAD_BYTES - AT_SALT;

void put(uint8_t * to, uint32_t value) {
    for (int i = 0; i < 4; i++) {
        to[i] = (uint8_t) (value >> (8 * i));
    }
}

uint32_t get(const uint8_t * from) {
    return (uint32_t) from[0] | (uint32_t) from[1] << 8 | (uint32_t) from[2] << 16 | (uint32_t) from[3] << 24;
}

using mac = std::array<uint8_t, SECRET_BYTES>;

#ifdef ATLAS_HAS_OPENSSL

// That the algorithms work was tried when the sealer was made: what can fail later is to get memory.
[[noreturn]] void fail() { throw std::bad_alloc(); }

mac hmac(const uint8_t * key, size_t n_key, std::string_view text) {
    mac      code;
    unsigned n = 0;
    if (!HMAC(EVP_sha256(), key, (int) n_key, reinterpret_cast<const unsigned char *>(text.data()), text.size(),
              code.data(), &n) ||
        n != code.size()) {
        fail();
    }
    return code;
}

void fill_randomly(uint8_t * bytes, size_t n_bytes) {
    if (RAND_bytes(bytes, (int) n_bytes) != 1) {
        throw std::runtime_error("OpenSSL has no random bytes to encrypt with");
    }
}

#else

[[noreturn]] void fail() { throw std::runtime_error(sealing_is_missing()); }

mac  hmac(const uint8_t *, size_t, std::string_view) { fail(); }
void fill_randomly(uint8_t *, size_t) { fail(); }

#endif

// RFC 5869 for one block of output.
secret_key hkdf(const secret_key & secret, std::string_view salt, std::string_view info) {
    mac               extracted = hmac(reinterpret_cast<const uint8_t *>(salt.data()), salt.size(), secret.text());
    const std::string block     = std::string(info) + '\x01';
    mac               expanded  = hmac(extracted.data(), extracted.size(), block);
    secret_key        made(expanded);
    wipe(extracted.data(), extracted.size());
    wipe(expanded.data(), expanded.size());
    return made;
}

constexpr std::string_view NO_SALT("\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 32);

secret_key derived(const secret_key & secret, std::string_view use, std::string_view part) {
    return hkdf(secret, NO_SALT, "atlas 1 " + std::string(use) + " " + std::string(part));
}

} // namespace

std::string sealing_is_missing() {
#ifdef ATLAS_HAS_OPENSSL
    return "";
#else
    return "this build cannot encrypt: install the package libssl-dev, and build anew";
#endif
}

std::optional<sealed_rest> sealed_rest_of(uint64_t n_sealed) {
    constexpr uint64_t WITH_TAG = SEAL_CHUNK_BYTES + SEAL_TAG_BYTES;
    const uint64_t     n_end    = n_sealed % WITH_TAG;
    if (n_end > 0 && n_end <= SEAL_TAG_BYTES) {
        return std::nullopt;
    }
    const uint64_t n_chunks = n_sealed / WITH_TAG + (n_end > 0 ? 1 : 0);
    return sealed_rest{n_sealed - n_chunks * SEAL_TAG_BYTES, n_chunks};
}

bool begins_sealed(const void * bytes, size_t n_bytes) {
    return n_bytes >= sizeof(MAGIC) && std::memcmp(bytes, MAGIC, sizeof(MAGIC)) == 0;
}

sealer::sealer(const secret_key & secret, std::string_view use)
    : values(derived(secret, use, "values")), names(derived(secret, use, "names")) {
    const secret_key whole = derived(secret, use, "id");
    std::memcpy(id.data(), whole.data(), id.size());
    std::string back;
    if (unseal("", seal("", "tried"), back) != unsealed::good || back != "tried") {
        throw std::runtime_error("OpenSSL does not give back what it encrypted");
    }
}

seal_name sealer::name_of(std::string_view text) const { return hmac(names.data(), SECRET_BYTES, text); }

secret_key derive_key(const secret_key & secret, std::string_view use) { return derived(secret, use, "key"); }

sealed_chunks sealer::begin(std::string_view name, size_t n_first) const {
    if (n_first > MAX_FIRST_CHUNK) {
        throw std::runtime_error("a value of " + std::to_string(n_first) + " bytes is too large to be sealed at once");
    }
    seal_head head;
    std::memcpy(head.data() + AT_MAGIC, MAGIC, sizeof(MAGIC));
    put(head.data() + AT_VERSION, VERSION);
    put(head.data() + AT_N_FIRST, (uint32_t) n_first);
    std::memcpy(head.data() + AT_ID, id.data(), id.size());
    fill_randomly(head.data() + AT_SALT, SALT_BYTES);
    return {values, head, name};
}

unsealed sealer::begin_reading(std::string_view name, const seal_head & head, size_t & n_first,
                               std::optional<sealed_chunks> & chunks) const {
    if (!begins_sealed(head.data(), head.size()) || get(head.data() + AT_VERSION) != VERSION ||
        !is_equal_secret(head.data() + AT_ID, id.data(), id.size())) {
        return unsealed::foreign;
    }
    n_first = get(head.data() + AT_N_FIRST);
    if (n_first > MAX_FIRST_CHUNK) {
        return unsealed::damaged;
    }
    chunks.emplace(values, head, name);
    return unsealed::good;
}

std::string sealer::seal(std::string_view name, std::string_view bytes) const {
    auto        chunks = begin(name, bytes.size());
    std::string sealed(sealed_bytes(bytes.size()), '\0');
    auto *      to = reinterpret_cast<uint8_t *>(sealed.data());
    std::memcpy(to, chunks.head().data(), SEAL_HEAD_BYTES);
    chunks.seal(0, true, reinterpret_cast<const uint8_t *>(bytes.data()), bytes.size(), to + SEAL_HEAD_BYTES,
                to + SEAL_HEAD_BYTES + bytes.size());
    return sealed;
}

unsealed sealer::unseal(std::string_view name, std::string_view sealed, std::string & bytes) const {
    if (!begins_sealed(sealed.data(), sealed.size())) {
        return unsealed::foreign;
    }
    if (sealed.size() < sealed_bytes(0)) {
        return unsealed::damaged;
    }
    seal_head head;
    std::memcpy(head.data(), sealed.data(), head.size());
    size_t                       n_first = 0;
    std::optional<sealed_chunks> chunks;
    if (const auto result = begin_reading(name, head, n_first, chunks); result != unsealed::good) {
        return result;
    }
    if (sealed.size() != sealed_bytes(n_first)) {
        return unsealed::damaged;
    }
    bytes.assign(sealed, SEAL_HEAD_BYTES, n_first);
    const auto * tag = reinterpret_cast<const uint8_t *>(sealed.data() + SEAL_HEAD_BYTES + n_first);
    if (!chunks->unseal(0, true, reinterpret_cast<uint8_t *>(bytes.data()), n_first, tag)) {
        bytes.clear();
        return unsealed::damaged;
    }
    return unsealed::good;
}

//
// chunks
//

#ifdef ATLAS_HAS_OPENSSL

struct sealed_chunks::cipher {
    secret_key             key;
    EVP_CIPHER_CTX * const of[2]      = {EVP_CIPHER_CTX_new(), EVP_CIPHER_CTX_new()}; // to unseal, to seal
    bool                   has_key[2] = {};

    explicit cipher(secret_key && key) : key(std::move(key)) {}
    cipher(const cipher &)             = delete;
    cipher & operator=(const cipher &) = delete;
    ~cipher() {
        for (EVP_CIPHER_CTX * each : of) {
            EVP_CIPHER_CTX_free(each);
        }
    }
};

// The nonce: the number of the chunk in 11 bytes, the largest first, and a byte that says whether it is the last.
void sealed_chunks::start(bool seals, uint64_t number, bool is_last) {
    EVP_CIPHER_CTX * ctx       = self->of[seals];
    uint8_t          nonce[12] = {};
    for (int i = 0; i < 8; i++) {
        nonce[10 - i] = (uint8_t) (number >> (8 * i));
    }
    nonce[11]         = is_last ? 1 : 0;
    int        n      = 0;
    const bool is_new = !std::exchange(self->has_key[seals], true);
    if (!ctx ||
        EVP_CipherInit_ex(ctx, is_new ? EVP_aes_256_gcm() : nullptr, nullptr, is_new ? self->key.data() : nullptr,
                          nonce, seals) != 1 ||
        EVP_CipherUpdate(ctx, nullptr, &n, begin.data(), (int) begin.size()) != 1 ||
        EVP_CipherUpdate(ctx, nullptr, &n, reinterpret_cast<const uint8_t *>(name.data()), (int) name.size()) != 1) {
        fail();
    }
}

void sealed_chunks::seal(uint64_t number, bool is_last, const uint8_t * bytes, size_t n_bytes, uint8_t * to,
                         uint8_t * tag) {
    start(true, number, is_last);
    int     n = 0;
    uint8_t none[SEAL_TAG_BYTES];
    if ((n_bytes > 0 && EVP_EncryptUpdate(self->of[1], to, &n, bytes, (int) n_bytes) != 1) ||
        EVP_EncryptFinal_ex(self->of[1], none, &n) != 1 ||
        EVP_CIPHER_CTX_ctrl(self->of[1], EVP_CTRL_GCM_GET_TAG, SEAL_TAG_BYTES, tag) != 1) {
        fail();
    }
}

bool sealed_chunks::unseal(uint64_t number, bool is_last, uint8_t * bytes, size_t n_bytes, const uint8_t * tag) {
    start(false, number, is_last);
    int      n = 0;
    uint8_t  none[SEAL_TAG_BYTES];
    seal_tag expected;
    std::memcpy(expected.data(), tag, expected.size());
    return (n_bytes == 0 || EVP_DecryptUpdate(self->of[0], bytes, &n, bytes, (int) n_bytes) == 1) &&
           EVP_CIPHER_CTX_ctrl(self->of[0], EVP_CTRL_GCM_SET_TAG, SEAL_TAG_BYTES, expected.data()) == 1 &&
           EVP_DecryptFinal_ex(self->of[0], none, &n) == 1;
}

#else

struct sealed_chunks::cipher {
    explicit cipher(secret_key &&) {}
};

void sealed_chunks::start(bool, uint64_t, bool) { fail(); }
void sealed_chunks::seal(uint64_t, bool, const uint8_t *, size_t, uint8_t *, uint8_t *) { fail(); }
bool sealed_chunks::unseal(uint64_t, bool, uint8_t *, size_t, const uint8_t *) { return false; }

#endif

sealed_chunks::sealed_chunks(const secret_key & values, const seal_head & head, std::string_view name)
    : begin(head), name(name) {
    const std::string_view salt(reinterpret_cast<const char *>(head.data()) + AT_SALT, SALT_BYTES);
    self = std::make_unique<cipher>(hkdf(values, salt, "atlas 1 value"));
}

sealed_chunks::sealed_chunks(sealed_chunks &&) noexcept             = default;
sealed_chunks & sealed_chunks::operator=(sealed_chunks &&) noexcept = default;
sealed_chunks::~sealed_chunks()                                     = default;

} // namespace atlas
