#include "shared-settings.hpp"

#include "atlas-in-effect.hpp"
#include "atlas-log.hpp"
#include "atlas-make-tier.hpp"
#include "compressed-codec.hpp"
#include "sealed-codec.hpp"

#include <algorithm>
#include <iterator>
#include <stdexcept>
#include <string>
#include <utility>

namespace atlas {

static std::invalid_argument wrong(const char * setting, const std::string & problem) {
    return std::invalid_argument(std::string("--atlas-") + setting + ": " + problem);
}

shared_options shared_by(const AtlasServerConfig & config, const secret_key * fleet) {
    static constexpr std::pair<const char *, share_policy> POLICIES[] = {
        {"all", share_policy::all}, {"reused", share_policy::reused}, {"none", share_policy::none}};

    const bool     compresses = config.shared_compression == "zstd";
    shared_options options;
    const auto     named = std::find_if(std::begin(POLICIES), std::end(POLICIES),
                                        [&](const auto & one) { return config.shared_write == one.first; });
    if (named == std::end(POLICIES)) {
        throw wrong("shared-write", "'" + config.shared_write + "' is not allowed: give all, reused or none");
    }
    options.write       = named->second;
    options.timeout_s   = config.shared_timeout_ms / 1000;
    options.ttl_s       = (double) config.shared_ttl_s;
    options.queue_bytes = (uint64_t) config.shared_queue_bytes;
    if (!config.shared_url.empty()) {
        tier_limits limits;
        limits.n_connections = (size_t) config.shared_connections;
        try {
            options.place = make_tier(config.shared_url, limits);
        } catch (const std::invalid_argument & error) {
            throw wrong("shared-url", error.what());
        }
        const auto warning = fleet != nullptr ? "" : needs_secret_warning(options.place->traits().address);
        if (!warning.empty()) {
            log(LogLevel::WARN, warning);
        }
    }
    if (!compresses && config.shared_compression != "none") {
        throw wrong("shared-compression", "'" + config.shared_compression + "' is not allowed: give none or zstd");
    }
    if (compresses && !memory::compression_is_built()) {
        throw wrong("shared-compression", "this build cannot compress, as libzstd was not there: apt-get install "
                                          "libzstd-dev, and build anew");
    }
    auto codec = fleet != nullptr ? memory::make_sealed_codec(*fleet) : std::make_shared<const memory::shared_codec>();
    options.codec = memory::make_compressed_codec(std::move(codec), compresses);
    return options;
}

std::unique_ptr<shared_records> records_by(const AtlasServerConfig & config, const secret_key * fleet) {
    if (config.shared_url.empty() || !saving_off(config).empty()) {
        return nullptr;
    }
    // An exchange is within the limit of a record, which may be raised while the server runs; other servers may have another.
    constexpr uint64_t AROUND_BYTES = 1 << 20;
    const uint64_t     max_bytes    = 4 * (uint64_t) config.max_state_bytes + AROUND_BYTES;
    return std::make_unique<shared_records>(make_record_tier(config.shared_url, max_bytes),
                                            fleet != nullptr ? std::make_shared<const fleet_seal>(*fleet) : nullptr,
                                            config.shared_timeout_ms / 1000);
}

} // namespace atlas
