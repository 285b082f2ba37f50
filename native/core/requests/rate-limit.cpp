#include "atlas-rate-limit.hpp"

#include <algorithm>

namespace atlas {

namespace {

// A shorter wait is an error of rounding.
const double ROUNDING_S = 1e-6;

double left_after(double level, double per_s, double seconds) {
    return per_s > 0 ? std::max(0.0, level - per_s * seconds) : 0; // no limit: nothing to remember
}

} // namespace

void rate_limiter::use::run_off(const rate_limits & limits, clock::time_point now) {
    // `now` may be earlier than the last use: another thread may have read the clock later and taken the lock first
    const double seconds = std::max(0.0, std::chrono::duration<double>(now - updated).count());

    requests = left_after(requests, limits.requests_per_s, seconds);
    tokens   = left_after(tokens, limits.tokens_per_min / 60, seconds);
    updated  = std::max(updated, now);
}

rate_limiter::use & rate_limiter::used_now(const std::string & name, const rate_limits & limits,
                                           clock::time_point now) {
    if (const auto known = by_name.find(name); known != by_name.end()) {
        uses.splice(uses.begin(), uses, known->second);
    } else {
        uses.push_front({name, now});
        by_name[uses.front().name] = uses.begin();
    }
    // looks at two names, so that their number can fall although each call may add one
    for (int i = 0; i < 2 && uses.size() > 1; i++) {
        use & oldest = uses.back();
        oldest.run_off(limits, now);
        if (uses.size() <= max_names && (oldest.requests > 0 || oldest.tokens > 0)) {
            break;
        }
        by_name.erase(oldest.name);
        uses.pop_back();
    }
    uses.front().run_off(limits, now);
    return uses.front();
}

double rate_limiter::try_request(const std::string & name, const rate_limits & limits, clock::time_point now) {
    if (limits.requests_per_s <= 0 && limits.tokens_per_min <= 0) {
        return 0;
    }
    const std::lock_guard<std::mutex> lock(mutex);
    use &                             use  = used_now(name, limits, now);
    double                            wait = 0;
    if (limits.requests_per_s > 0) {
        const double burst = std::max(1.0, limits.requests_per_s);
        wait               = (use.requests + 1 - burst) / limits.requests_per_s;
    }
    if (limits.tokens_per_min > 0) {
        wait = std::max(wait, (use.tokens - limits.tokens_per_min) / (limits.tokens_per_min / 60));
    }
    if (wait > ROUNDING_S) {
        return wait;
    }
    if (limits.requests_per_s > 0) {
        use.requests++;
    }
    return 0;
}

void rate_limiter::give_back(const std::string & name) {
    const std::lock_guard<std::mutex> lock(mutex);
    if (const auto known = by_name.find(name); known != by_name.end()) {
        known->second->requests = std::max(0.0, known->second->requests - 1);
    }
}

void rate_limiter::charge(const std::string & name, double tokens, const rate_limits & limits, clock::time_point now) {
    if (limits.tokens_per_min > 0 && tokens > 0) {
        const std::lock_guard<std::mutex> lock(mutex);
        used_now(name, limits, now).tokens += tokens;
    }
}

size_t rate_limiter::size() const {
    const std::lock_guard<std::mutex> lock(mutex);
    return uses.size();
}

} // namespace atlas
