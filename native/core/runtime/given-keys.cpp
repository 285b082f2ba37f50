#include "given-keys.hpp"

#include "atlas-in-effect.hpp"
#include "encryption-mark.hpp"

#include <stdexcept>

namespace atlas {

static void check_build(const std::string & setting) {
    if (const std::string missing = sealing_is_missing(); !missing.empty()) {
        throw std::invalid_argument(setting + ": " + missing);
    }
}

static std::optional<secret_key> encryption_key(const AtlasServerConfig & config) {
    const bool has_file = !config.encryption_key_file.empty(), has_command = !config.encryption_key_command.empty();
    if (has_file && has_command) {
        throw std::invalid_argument("encryption_key_file and encryption_key_command are both given: give one of them");
    }
    if (has_file || has_command) {
        check_build(has_file ? "encryption_key_file" : "encryption_key_command");
    }
    if (has_file) {
        return read_key_file(config.encryption_key_file, "encryption_key_file");
    }
    return has_command ? std::optional(read_key_of_command(config.encryption_key_command, "encryption_key_command"))
                       : std::nullopt;
}

std::shared_ptr<const sealer> settle_encryption(const AtlasServerConfig & config) {
    if (!saving_off(config).empty()) {
        return nullptr;
    }
    std::shared_ptr<const sealer> seal;
    if (const auto key = encryption_key(config)) {
        seal = std::make_shared<sealer>(*key, "at rest");
    }
    check_encryption_mark(config.memory_save_path, seal.get());
    return seal;
}

std::optional<secret_key> fleet_secret(const AtlasServerConfig & config) {
    if (config.shared_secret_file.empty()) {
        return std::nullopt;
    }
    check_build("shared_secret_file");
    return read_key_file(config.shared_secret_file, "shared_secret_file");
}

} // namespace atlas
