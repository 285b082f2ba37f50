#include "shared-codec.hpp"

#include "digest.hpp"

#include <algorithm>
#include <cstring>

namespace atlas {

namespace {

constexpr size_t N_ROOT_DIGITS = 16; // enough to list or remove what is of one root

std::string named(std::string_view root, std::string_view key) {
    return "atlas:1:" + std::string(root.substr(0, N_ROOT_DIGITS)) + ":" + std::string(key);
}

class plain_codec : public shared_codec {
  public:
    std::string name_of(std::string_view root, std::string_view key) const override { return named(root, key); }

    std::vector<std::string_view> wrap(std::string_view, const std::vector<std::string_view> & pieces,
                                       state_bytes &) const override {
        return pieces;
    }

    std::optional<std::string_view> unwrap(std::string_view, std::string_view value, state_bytes &) const override {
        return value;
    }

    uint64_t extra_bytes(uint64_t, uint64_t) const override { return 0; }
};

class sealed_codec : public shared_codec {
  public:
    explicit sealed_codec(const secret_key & secret) : with(secret, "shared") {}

    std::string name_of(std::string_view root, std::string_view key) const override {
        return named(memory::digest_hex(with.name_of("root " + std::string(root))),
                     memory::digest_hex(with.name_of("entry " + std::string(key))));
    }

    std::vector<std::string_view> wrap(std::string_view name, const std::vector<std::string_view> & pieces,
                                       state_bytes & scratch) const override {
        const std::string_view first  = pieces.empty() ? std::string_view() : pieces.front();
        uint64_t               n_rest = 0;
        for (size_t i = 1; i < pieces.size(); i++) {
            n_rest += pieces[i].size();
        }
        auto chunks = with.begin(name, first.size());
        scratch.resize(sealed_bytes(first.size(), n_rest));
        uint8_t * to = scratch.data();
        std::memcpy(to, chunks.head().data(), SEAL_HEAD_BYTES);
        to += SEAL_HEAD_BYTES;
        const auto * bytes = reinterpret_cast<const uint8_t *>(first.data());
        chunks.seal(0, n_rest == 0, bytes, first.size(), to, to + first.size());
        to += first.size() + SEAL_TAG_BYTES;
        size_t piece = 1, at = 0;
        for (uint64_t number = 1, done = 0; done < n_rest; number++) {
            const size_t n = (size_t) std::min<uint64_t>(SEAL_CHUNK_BYTES, n_rest - done);
            for (size_t have = 0; have < n;) { // gathered, and sealed where it lies
                const size_t more = std::min(n - have, pieces[piece].size() - at);
                std::memcpy(to + have, pieces[piece].data() + at, more);
                have += more;
                at += more;
                if (at == pieces[piece].size()) {
                    piece++;
                    at = 0;
                }
            }
            done += n;
            chunks.seal(number, done == n_rest, to, n, to, to + n);
            to += n + SEAL_TAG_BYTES;
        }
        return {{reinterpret_cast<const char *>(scratch.data()), scratch.size()}};
    }

    std::optional<std::string_view> unwrap(std::string_view name, std::string_view value,
                                           state_bytes & scratch) const override {
        seal_head                    head;
        size_t                       n_first = 0;
        std::optional<sealed_chunks> chunks;
        if (value.size() < sealed_bytes(0)) {
            return std::nullopt;
        }
        std::memcpy(head.data(), value.data(), head.size());
        if (with.begin_reading(name, head, n_first, chunks) != unsealed::good || value.size() < sealed_bytes(n_first)) {
            return std::nullopt;
        }
        const auto behind = sealed_rest_of(value.size() - sealed_bytes(n_first));
        if (!behind) {
            return std::nullopt;
        }
        scratch.resize(n_first + behind->n_plain);
        const auto * from = reinterpret_cast<const uint8_t *>(value.data()) + SEAL_HEAD_BYTES;
        uint8_t *    to   = scratch.data();
        size_t       left = scratch.size();
        for (uint64_t number = 0; number <= behind->n_chunks; number++) {
            const size_t n = number == 0 ? n_first : std::min(SEAL_CHUNK_BYTES, left);
            if (n > 0) {
                std::memcpy(to, from, n);
            }
            if (!chunks->unseal(number, number == behind->n_chunks, to, n, from + n)) {
                return std::nullopt;
            }
            from += n + SEAL_TAG_BYTES;
            to += n;
            left -= n;
        }
        return std::string_view(reinterpret_cast<const char *>(scratch.data()), scratch.size());
    }

    uint64_t extra_bytes(uint64_t n_first, uint64_t n_bytes) const override {
        return sealed_bytes(n_first, n_bytes - n_first) - n_bytes;
    }

  private:
    sealer with;
};

} // namespace

std::unique_ptr<shared_codec> make_plain_codec() { return std::make_unique<plain_codec>(); }

std::unique_ptr<shared_codec> make_sealed_codec(const secret_key & fleet_secret) {
    return std::make_unique<sealed_codec>(fleet_secret);
}

std::string needs_secret_warning(std::string_view address) {
    const size_t     scheme_end = address.find("://");
    std::string_view scheme = scheme_end == std::string_view::npos ? std::string_view() : address.substr(0, scheme_end);
    std::string_view host   = scheme_end == std::string_view::npos ? address : address.substr(scheme_end + 3);
    if (host.empty() || host.front() == '/' || scheme == "file" || scheme == "unix") {
        return "";
    }
    host = host.substr(0, host.find_first_of("/?#"));
    if (const size_t at = host.rfind('@'); at != std::string_view::npos) {
        host.remove_prefix(at + 1);
    }
    if (!host.empty() && host.front() == '[') {
        host = host.substr(1, host.find(']') - 1);
    } else if (std::count(host.begin(), host.end(), ':') == 1) {
        host = host.substr(0, host.find(':'));
    }
    const bool is_four = host.substr(0, 4) == "127." && host.find_first_not_of("0123456789.") == std::string_view::npos;
    if (is_four || host == "localhost" || host == "::1" || host == "::ffff:127.0.0.1") {
        return "";
    }
    return "what conversations hold goes to " + std::string(host) +
           " as it is, and whoever can write there can change it: give all servers one secret by "
           "--atlas-shared-secret-file";
}

} // namespace atlas
