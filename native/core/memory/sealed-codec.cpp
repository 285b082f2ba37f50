#include "sealed-codec.hpp"

#include "atlas-state-bytes.hpp"
#include "fleet-seal.hpp"

#include <algorithm>
#include <utility>

namespace atlas::memory {

namespace {

std::string_view text_of(const state_bytes & bytes) {
    return {reinterpret_cast<const char *>(bytes.data()), bytes.size()};
}

class sealed_codec : public shared_codec {
  public:
    explicit sealed_codec(const secret_key & secret) : seal(secret) {}

    std::string name_of(const digest & root, const digest & key) const override {
        return shared_codec::name_of(seal.name_of_root(digest_hex(root)), seal.name_of_entry(digest_hex(key)));
    }

    value_pieces wrap(const std::string & name, value_pieces plain) const override {
        const auto sealed = std::make_shared<state_bytes>(fleet_seal::wrapped_bytes(plain.pieces));
        seal.wrap(name, plain.pieces, sealed->data());
        return {{text_of(*sealed)}, sealed};
    }

    unwrapping unwrap(const std::string & name, tier_value & value, const room_for &) const override {
        const auto n_bytes = seal.plain_bytes(value.bytes);
        if (!n_bytes) {
            return unwrapping::wrong;
        }
        const auto plain = std::make_shared<state_bytes>(*n_bytes);
        if (!seal.unwrap(name, value.bytes, plain->data())) {
            return unwrapping::wrong;
        }
        value = {plain, text_of(*plain)};
        return unwrapping::good;
    }

  private:
    fleet_seal seal;
};

} // namespace

std::shared_ptr<const shared_codec> make_sealed_codec(const secret_key & fleet_secret) {
    return std::make_shared<const sealed_codec>(fleet_secret);
}

} // namespace atlas::memory

namespace atlas {

std::string needs_secret_warning(std::string_view address) {
    const size_t     scheme_end = address.find("://");
    const bool       has_scheme = scheme_end != std::string_view::npos;
    std::string_view scheme     = has_scheme ? address.substr(0, scheme_end) : std::string_view();
    std::string_view host       = has_scheme ? address.substr(scheme_end + 3) : address;
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
