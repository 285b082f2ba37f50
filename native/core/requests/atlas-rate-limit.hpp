// Limits on how much one client may ask for.
#pragma once

#include <chrono>
#include <cstddef>
#include <list>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>

namespace atlas {

// What one name may do; 0: no limit. Either may change between two calls.
struct rate_limits {
    double requests_per_s = 0; // as many as a second allows, and at least one, may come at once
    double tokens_per_min = 0; // as many as a minute allows may be used at once
};

// Two token buckets for each name. They are kept as the continuous-state leaky bucket of ITU-T I.371 (GCRA), which is the same
// seen from the other side: what was used runs off at the rate allowed, and a request that would overflow is refused.
// Tokens are charged when they are known, after the answer, so that the bucket may overflow; until it no longer does,
// requests are refused.
//
// Any thread; a call takes constant time. Names are forgotten when all they used has run off, and beyond max_names those
// that were not used for longest. The token loop does not call it: a lock is taken.
class rate_limiter {
  public:
    using clock = std::chrono::steady_clock;

    explicit rate_limiter(size_t max_names = 65536) : max_names(max_names) {}

    // Takes one request and returns 0, or takes nothing and returns after how many seconds it would be allowed.
    double try_request(const std::string & name, const rate_limits & limits, clock::time_point now);

    // Takes back a request that was allowed and refused for another reason.
    void give_back(const std::string & name);

    void charge(const std::string & name, double tokens, const rate_limits & limits, clock::time_point now);

    // Names that are remembered.
    size_t size() const;

  private:
    struct use {
        std::string       name;
        clock::time_point updated;
        double            requests = 0;
        double            tokens   = 0;

        void run_off(const rate_limits & limits, clock::time_point now);
    };

    use & used_now(const std::string & name, const rate_limits & limits, clock::time_point now);

    const size_t       max_names;
    mutable std::mutex mutex; // guards all below

    std::list<use>                                                 uses; // the one used last is the first
    std::unordered_map<std::string_view, std::list<use>::iterator> by_name; // by use::name
};

} // namespace atlas
