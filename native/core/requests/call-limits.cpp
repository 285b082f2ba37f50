#include "atlas-call-limits.hpp"

#include "atlas-error.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>

namespace atlas {

static const int RETRY_AFTER_S = 1;

struct call_limits::in_progress {
    std::mutex                     mutex;
    std::map<std::string, int64_t> count; // by account; an account with 0 is removed

    bool enter(const std::string & account, int64_t limit) {
        const std::lock_guard<std::mutex> lock(mutex);
        if (int64_t & n = count[account]; n < limit) {
            n++;
            return true;
        }
        return false;
    }

    void leave(const std::string & account) {
        const std::lock_guard<std::mutex> lock(mutex);
        if (const auto found = count.find(account); --found->second == 0) {
            count.erase(found);
        }
    }
};

call_limits::call_limits() : running(std::make_shared<in_progress>()) {}

std::shared_ptr<void> call_limits::enter(const std::string & account, const AtlasServerConfig & config) {
    const rate_limits limits = {config.key_calls_per_s, 0};
    if (const double wait_s = rates.try_request(account, limits, rate_limiter::clock::now())) {
        throw error(429, "Rate limit exceeded for this API key: --atlas-key-calls-per-s",
                    (int) std::min(3600.0, std::ceil(wait_s)));
    }
    if (!running->enter(account, config.max_calls_per_key)) {
        throw error(429,
                    "too many requests under /v1/atlas are in progress for this API key: --atlas-max-calls-per-key",
                    RETRY_AFTER_S);
    }
    return {nullptr, [held = running, account](void *) { held->leave(account); }};
}

} // namespace atlas
