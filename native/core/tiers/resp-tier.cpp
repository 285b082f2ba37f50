#include "resp-tier.hpp"

#include "resp-failure.hpp"
#include "resp-get.hpp"
#include "resp-servers.hpp"
#include "tier-counters.hpp"

#include <algorithm>
#include <map>

namespace atlas {

namespace {

using namespace resp;

constexpr size_t   MAX_PIPELINED    = 512; // commands of one write
constexpr uint64_t MAX_STRING_BYTES = 512ull << 20; // proto-max-bulk-len of servers

// Keys of one server, by their places in the call.
using places = std::vector<size_t>;

class resp_tier final : public record_tier {
  private:
    // Does it with the map of the cluster; once more with a new one where a server does not have a key any more.
    template <typename F> auto in_map(tier_deadline until, F action) {
        for (bool is_first = true;; is_first = false) {
            const auto map = servers.current(until);
            try {
                return action(*map);
            } catch (const moved_error &) {
                servers.is_wrong();
                if (!servers.is_cluster() || !is_first) {
                    throw;
                }
            } catch (const tier_error & error) {
                if (error.kind == tier_failure::unreachable) {
                    servers.is_wrong(); // another may have taken its place
                }
                throw;
            }
        }
    }

  public:
    resp_tier(const tier_url & url, const tier_limits & limits) : servers(url, limits) {
        own.scheme          = "valkey";
        own.address         = url.address();
        own.n_at_once       = servers.n_reading() * MAX_ASKED;
        own.max_value_bytes = std::min(limits.max_value_bytes, MAX_STRING_BYTES);
    }

    const tier_traits & traits() const override { return own; }
    tier_counts         counts() const override { return counters.now(); }

    void limit_values(uint64_t max_bytes) override { servers.limit_values(std::min(max_bytes, own.max_value_bytes)); }

    std::vector<bool> probe(const std::vector<std::string> & keys, tier_deadline until) override {
        const auto one = [](const std::string & key) { return command({"EXISTS", key}); };
        return in_map(until, [&](const server_map & map) {
            tier_clock::duration took{};
            auto                 found = ask_all(map, use::probe, keys, one, until, &took);
            counters.round_trip(took);
            return found;
        });
    }

    void get(const std::vector<std::string> & keys, tier_deadline until,
             const std::function<bool(size_t, tier_value)> & take) override {
        size_t n_taken = 0;
        if (keys.empty()) {
            return;
        }
        in_map(until, [&](const server_map & map) {
            ordered_get all(map, keys, n_taken, own.n_at_once);
            try {
                all.run(until, take, counters);
            } catch (const moved_error &) {
                n_taken = all.n_taken();
                throw;
            }
            return true;
        });
    }

    void put(const std::string & key, const std::vector<std::string_view> & pieces, std::chrono::seconds ttl,
             tier_deadline until) override {
        uint64_t n_bytes = 0;
        for (const auto & piece : pieces) {
            n_bytes += piece.size();
        }
        if (n_bytes > own.max_value_bytes) {
            throw tier_error(tier_failure::full,
                             own.address + ": it takes no value of " + std::to_string(n_bytes) + " bytes");
        }
        // As command() would write it, but for the value, which is sent from where it is.
        const std::string head = "*5\r\n$3\r\nSET\r\n$" + std::to_string(key.size()) + "\r\n" + key + "\r\n$" +
                                 std::to_string(n_bytes) + "\r\n";
        const std::string end  = "\r\n$2\r\nEX\r\n" + bulk(std::to_string(seconds_of(ttl)));
        std::vector<std::string_view> all = {head};
        all.insert(all.end(), pieces.begin(), pieces.end());
        all.push_back(end);
        in_map(until, [&](const server_map & map) {
            auto       to    = map.at(key).take(use::write, until);
            const auto began = tier_clock::now();
            to->send(all, until);
            const reply got = to->read(until);
            if (!got.is_error()) {
                counters.written(n_bytes, tier_clock::now() - began);
            }
            settle(to, got, got.is_status());
            return true;
        });
    }

    std::vector<bool> keep(const std::vector<std::string> & keys, std::chrono::seconds ttl,
                           tier_deadline until) override {
        const std::string seconds = std::to_string(seconds_of(ttl));
        const auto        one     = [&](const std::string & key) { return command({"EXPIRE", key, seconds}); };
        return in_map(until, [&](const server_map & map) { return ask_all(map, use::write, keys, one, until); });
    }

    void remove(const std::vector<std::string> & keys, tier_deadline until) override {
        const auto one = [](const std::string & key) { return command({"DEL", key}); };
        in_map(until, [&](const server_map & map) { return ask_all(map, use::write, keys, one, until); });
    }

    void ping(tier_deadline until) override {
        in_map(until, [&](const server_map & map) {
            for (const auto & server : map.servers) {
                auto       to    = server->take(use::probe, until);
                const auto began = tier_clock::now();
                to->send({command({"PING"})}, until);
                const reply got = to->read(until);
                counters.round_trip(tier_clock::now() - began);
                settle(to, got, got.is_status());
            }
            return true;
        });
    }

    bool create(const std::string & key, std::string_view value, tier_deadline until) override {
        return set(key, value, {"NX"}, until);
    }

    void replace(const std::string & key, std::string_view value, tier_deadline until) override {
        set(key, value, {}, until);
    }

    void add_name(const std::string & set, const std::string & name, tier_deadline until) override {
        ask_one(set, command({"ZADD", set, "0", name}), until);
    }

    void remove_name(const std::string & set, const std::string & name, tier_deadline until) override {
        ask_one(set, command({"ZREM", set, name}), until);
    }

    std::vector<std::string> names(const std::string & set, const std::string & after, size_t n_most,
                                   tier_deadline until) override {
        const std::string begin = after.empty() ? "-" : "(" + after;
        const std::string most  = std::to_string(std::min(n_most, MAX_NAMES));
        const std::string text  = command({"ZRANGE", set, begin, "+", "BYLEX", "LIMIT", "0", most});
        return in_map(until, [&](const server_map & map) {
            auto from = map.at(set).take(use::probe, until);
            from->send({text}, until);
            const reply              got = from->read(until);
            std::vector<std::string> found;
            for (size_t i = 0; got.is_array() && i < std::min(got.small->elements, MAX_NAMES); i++) {
                const valkeyReply & one = *got.small->element[i];
                if (one.type == VALKEY_REPLY_STRING && is_record_name({one.str, one.len})) {
                    found.emplace_back(one.str, one.len);
                }
            }
            settle(from, got, got.is_array());
            return found;
        });
    }

  private:
    // Returns whether it was set.
    bool set(const std::string & key, std::string_view value, std::initializer_list<std::string_view> options,
             tier_deadline until) {
        if (value.size() > own.max_value_bytes) {
            throw tier_error(tier_failure::full,
                             own.address + ": it takes no record of " + std::to_string(value.size()) + " bytes");
        }
        const std::string head = "*" + std::to_string(3 + options.size()) + "\r\n$3\r\nSET\r\n" + bulk(key) + "$" +
                                 std::to_string(value.size()) + "\r\n";
        std::string       end  = "\r\n";
        for (const auto & option : options) {
            end += bulk(std::string(option));
        }
        return in_map(until, [&](const server_map & map) {
            auto       to    = map.at(key).take(use::write, until);
            const auto began = tier_clock::now();
            to->send({head, value, end}, until);
            const reply got      = to->read(until);
            const bool  is_taken = !got.small && !got.value.owner; // no value: the option NX is against it
            if (got.is_status()) {
                counters.written(value.size(), tier_clock::now() - began);
            }
            settle(to, got, got.is_status() || is_taken);
            return got.is_status();
        });
    }

    // A command whose reply is a number that does not matter.
    void ask_one(const std::string & key, const std::string & text, tier_deadline until) {
        in_map(until, [&](const server_map & map) {
            auto to = map.at(key).take(use::write, until);
            to->send({text}, until);
            const reply got = to->read(until);
            settle(to, got, got.is_integer());
            return true;
        });
    }

    static std::string bulk(const std::string & word) {
        return "$" + std::to_string(word.size()) + "\r\n" + word + "\r\n";
    }

    static int64_t seconds_of(std::chrono::seconds ttl) { return std::max<int64_t>(1, ttl.count()); }

    // A reply that ends what a connection was asked.
    static void settle(connection_pool::lease & of, const reply & got, bool is_right) {
        if (!is_right) {
            of->fail(got);
        }
        of.give_back();
    }

    // One command for each key, all of a server in one write; the replies are numbers, and whether each is not 0 is returned.
    // `took` gets the time from the last write to the last reply.
    template <typename F>
    std::vector<bool> ask_all(const server_map & map, use kind, const std::vector<std::string> & keys, F one,
                              tier_deadline until, tier_clock::duration * took = nullptr) {
        std::map<connection_pool *, places> of_server;
        for (size_t i = 0; i < keys.size(); i++) {
            of_server[&map.at(keys[i])].push_back(i);
        }
        std::vector<bool> answers(keys.size());
        for (size_t begin = 0, most = 0; begin == 0 || begin < most; begin += MAX_PIPELINED) {
            std::vector<std::pair<connection_pool::lease, places>> asked;
            for (const auto & [server, all] : of_server) {
                most = std::max(most, all.size());
                if (begin < all.size()) {
                    const size_t end = std::min(begin + MAX_PIPELINED, all.size());
                    asked.emplace_back(server->take(kind, until), places(all.begin() + begin, all.begin() + end));
                    std::string text;
                    for (const size_t i : asked.back().second) {
                        text += one(keys[i]);
                    }
                    asked.back().first->send({text}, until);
                }
            }
            const auto sent = tier_clock::now();
            for (auto & [from, of] : asked) {
                read_numbers(from, of, answers, until);
            }
            if (took) {
                *took = tier_clock::now() - sent;
            }
        }
        return answers;
    }

    static void read_numbers(connection_pool::lease & from, const places & of, std::vector<bool> & answers,
                             tier_deadline until) {
        for (const size_t i : of) {
            const reply got = from->read(until);
            if (!got.is_integer() && !got.is_migrating()) {
                from->fail(got);
            }
            answers[i] = got.is_integer() && got.small->integer > 0;
        }
        from.give_back();
    }

    tier_traits   own;
    server_list   servers;
    tier_counters counters;
};

} // namespace

std::unique_ptr<record_tier> make_resp_tier(const tier_url & url, const tier_limits & limits) {
    return std::make_unique<resp_tier>(url, limits);
}

} // namespace atlas
