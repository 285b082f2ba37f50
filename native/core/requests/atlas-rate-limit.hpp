// Limits how much one client may ask for. Touches its own lock only; HTTP threads call it, the token loop never does.
#pragma once

#include <chrono>
#include <cstddef>
#include <list>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>

namespace atlas {

// The rates of one name; 0: no limit. The caller may give others at the next call.
struct rate_limits {
    double requests_per_s = 0; // the burst is a second's requests, at least one
    double tokens_per_min = 0; // the burst is a minute's tokens
};

// Two buckets for each name, of requests and of tokens, kept as the continuous-state leaky bucket of ITU-T I.371
// (GCRA): what a name uses fills the bucket, which runs off at the allowed rate, and a request that would make it
// overflow is refused. Tokens are known only after the answer, so that charging them may make the bucket overflow; then
// requests are refused until it has run off far enough.
//
// Any thread; a call takes constant time. A name is forgotten when its buckets are empty; beyond max_names the name
// that was not used for longest is.
class rate_limiter {
  public:
    using clock = std::chrono::steady_clock;

    explicit rate_limiter(size_t max_names = 65536) : max_names(max_names) {}

    // Counts one request and returns 0; or counts nothing and returns after how many seconds it would be allowed.
    double try_request(const std::string & name, const rate_limits & limits, clock::time_point now);

    // Takes a request back that was allowed here and then refused for another reason.
    void give_back(const std::string & name);

    // Counts the tokens that a request of the name used.
    void charge(const std::string & name, double tokens, const rate_limits & limits, clock::time_point now);

    // How many names are remembered.
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
