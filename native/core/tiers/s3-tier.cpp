#include "s3-tier.hpp"

#ifdef ATLAS_S3
#include "s3-account.hpp"
#include "s3-transfers.hpp"
#include "tier-counters.hpp"

#include <curl/curl.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#endif

namespace atlas {

#ifdef ATLAS_S3

namespace {

using namespace s3;

constexpr size_t   MAX_IDLE      = 4; // of what calls leave for later ones
constexpr uint64_t MAX_PUT_BYTES = 5ull << 30; // of S3, in one request

// libcurl's own, of which it counts how many there are.
struct curl_user {
    curl_user() { curl_global_init(CURL_GLOBAL_DEFAULT); }
    ~curl_user() { curl_global_cleanup(); }
};

class s3_tier final : public record_tier {
  public:
    s3_tier(const tier_url & url, const tier_limits & limits) : of(url) {
        own.scheme          = "s3";
        own.address         = url.address();
        own.is_probed       = false;
        own.expires         = false;
        own.n_at_once       = url.number("connections", 2 * limits.n_connections, 64);
        own.max_value_bytes = std::min(limits.max_value_bytes, MAX_PUT_BYTES);
        max_read_bytes      = own.max_value_bytes;
    }

    const tier_traits & traits() const override { return own; }
    tier_counts         counts() const override { return counters.now(); }
    void limit_values(uint64_t max_bytes) override { max_read_bytes = std::min(max_bytes, own.max_value_bytes); }

    std::vector<bool> probe(const std::vector<std::string> & keys, tier_deadline until) override {
        std::vector<bool> found(keys.size());
        const auto        began = tier_clock::now();
        run(requests_for(method::head, keys), until, [&](size_t index, response got) {
            found[index] = got.is_there;
            return true;
        });
        counters.round_trip(tier_clock::now() - began);
        return found;
    }

    void get(const std::vector<std::string> & keys, tier_deadline until,
             const std::function<bool(size_t, tier_value)> & take) override {
        const struct timer {
            tier_counters &        counters;
            tier_clock::time_point began = tier_clock::now();
            ~timer() { counters.read_for(tier_clock::now() - began); }
        } timer{counters};
        run(requests_for(method::get, keys), until, [&](size_t index, response got) {
            if (got.is_there) {
                counters.read(got.value.bytes.size());
            }
            return got.is_there && take(index, std::move(got.value));
        });
    }

    void put(const std::string & key, const std::vector<std::string_view> & pieces, std::chrono::seconds,
             tier_deadline until) override {
        uint64_t n_bytes = 0;
        for (const auto & piece : pieces) {
            n_bytes += piece.size();
        }
        if (n_bytes > own.max_value_bytes) {
            throw tier_error(tier_failure::full,
                             own.address + ": it takes no value of " + std::to_string(n_bytes) + " bytes");
        }
        const auto began = tier_clock::now();
        run({{method::put, key, &pieces, ""}}, until, [&](size_t, response got) {
            if (!got.is_there) {
                throw tier_error(tier_failure::denied, own.address + ": there is no such bucket");
            }
            counters.written(n_bytes, tier_clock::now() - began);
            return true;
        });
    }

    // Nothing is ever lost by age but by rules of the bucket, which look at when it was written.
    std::vector<bool> keep(const std::vector<std::string> & keys, std::chrono::seconds, tier_deadline) override {
        return std::vector<bool>(keys.size(), true);
    }

    void remove(const std::vector<std::string> & keys, tier_deadline until) override {
        run(requests_for(method::del, keys), until, [](size_t, response) { return true; });
    }

    // It may read, and the keys are right: whether something is there does not matter.
    void ping(tier_deadline until) override {
        const auto began = tier_clock::now();
        run({{method::get, "ping", nullptr, ""}}, until, [](size_t, response) { return true; });
        counters.round_trip(tier_clock::now() - began);
    }

    bool create(const std::string & key, std::string_view value, tier_deadline until) override {
        return write(method::create, key, value, until);
    }

    void replace(const std::string & key, std::string_view value, tier_deadline until) override {
        write(method::put, key, value, until);
    }

    // A name is an object that has nothing in it.
    void add_name(const std::string & set, const std::string & name, tier_deadline until) override {
        write(method::put, set + ":" + name, "", until);
    }

    void remove_name(const std::string & set, const std::string & name, tier_deadline until) override {
        remove({set + ":" + name}, until);
    }

    std::vector<std::string> names(const std::string & set, const std::string & after, size_t n_most,
                                   tier_deadline until) override {
        std::vector<std::string> found;
        run({{method::list, set + ":", nullptr, after}}, until, [&](size_t, const response & got) {
            found = listed(got.value.bytes, of.name_of(set + ":"), std::min(n_most, MAX_NAMES));
            return true;
        });
        return found;
    }

  private:
    // Of an answer to a list, whose names have nothing that XML escapes.
    static std::vector<std::string> listed(std::string_view xml, const std::string & prefix, size_t n_most) {
        static constexpr std::string_view BEGIN = "<Key>", END = "</Key>";
        std::vector<std::string>          found;
        for (size_t at = xml.find(BEGIN); at != std::string_view::npos && found.size() < n_most;
             at        = xml.find(BEGIN, at)) {
            at += BEGIN.size();
            const std::string_view key = xml.substr(at, xml.find(END, at) - at);
            if (key.substr(0, prefix.size()) == prefix && is_record_name(key.substr(prefix.size()))) {
                found.emplace_back(key.substr(prefix.size()));
            }
        }
        return found;
    }

    // Returns whether it was written: not where there is something that create() leaves alone.
    bool write(method how, const std::string & key, std::string_view value, tier_deadline until) {
        const std::vector<std::string_view> pieces = {value};
        if (value.size() > own.max_value_bytes) {
            throw tier_error(tier_failure::full,
                             own.address + ": it takes no record of " + std::to_string(value.size()) + " bytes");
        }
        const auto began    = tier_clock::now();
        bool       is_taken = false;
        run({{how, key, &pieces, ""}}, until, [&](size_t, const response & got) {
            if (!got.is_there && !got.is_taken) {
                throw tier_error(tier_failure::denied, own.address + ": there is no such bucket");
            }
            is_taken = got.is_taken;
            return true;
        });
        if (!is_taken) {
            counters.written(value.size(), tier_clock::now() - began);
        }
        return !is_taken;
    }

    static std::vector<request> requests_for(method what, const std::vector<std::string> & keys) {
        std::vector<request> all;
        for (const auto & key : keys) {
            all.push_back({what, key, nullptr, ""});
        }
        return all;
    }

    // With connections that no other call uses at the time.
    void run(const std::vector<request> & requests, tier_deadline until,
             const std::function<bool(size_t, response)> & done) {
        std::unique_ptr<transfers> mine;
        {
            std::lock_guard held(mutex);
            if (!idle.empty()) {
                mine = std::move(idle.back());
                idle.pop_back();
            }
        }
        if (!mine) {
            mine = std::make_unique<transfers>(of, own.address, own.max_value_bytes);
        }
        mine->limit(max_read_bytes);
        mine->run(requests, own.n_at_once, until, done);
        std::lock_guard held(mutex);
        if (idle.size() < MAX_IDLE) {
            idle.push_back(std::move(mine));
        }
    }

    const curl_user                         user;
    tier_traits                             own;
    std::atomic<uint64_t>                   max_read_bytes = 0;
    const account                           of;
    tier_counters                           counters;
    std::mutex                              mutex;
    std::vector<std::unique_ptr<transfers>> idle;
};

} // namespace

std::unique_ptr<record_tier> make_s3_tier(const tier_url & url, const tier_limits & limits) {
    return std::make_unique<s3_tier>(url, limits);
}

#else

std::unique_ptr<record_tier> make_s3_tier(const tier_url & url, const tier_limits &) {
    url.refuse("this build is without S3, as libcurl 7.88 was not there: install libcurl4-openssl-dev and build again");
}

#endif

} // namespace atlas
