#include "resp-get.hpp"

#include <poll.h>

#include <algorithm>
#include <cerrno>

namespace atlas::resp {

ordered_get::ordered_get(const server_map & map, const std::vector<std::string> & keys, size_t begin, size_t window)
    : map(map), keys(keys), window(window), next_to_ask(begin), next_to_take(begin), ready(window) {}

void ordered_get::run(tier_deadline until, const taker & take, tier_counters & counters) {
    const struct timer {
        tier_counters &        counters;
        tier_clock::time_point began = tier_clock::now();
        ~timer() { counters.read_for(tier_clock::now() - began); }
    } timer{counters};
    for (;;) {
        try {
            ask(until);
            wait(until);
            receive();
        } catch (const tier_error &) {
            if (take_ready(take, counters)) {
                throw;
            }
            break; // what went wrong was behind the end
        }
        if (!take_ready(take, counters)) {
            break;
        }
    }
    give_back();
}

// The next keys, as far as there is room, each from the least busy connection to its server.
void ordered_get::ask(tier_deadline until) {
    while (next_to_ask < keys.size() && next_to_ask < next_to_take + window) {
        lane * const to = lane_for(map.at(keys[next_to_ask]), until);
        if (!to) {
            return;
        }
        to->connection->send({command({"GET", keys[next_to_ask]})}, until);
        to->asked.push_back(next_to_ask++);
    }
}

ordered_get::lane * ordered_get::lane_for(connection_pool & server, tier_deadline until) {
    lane * least = nullptr;
    for (auto & one : lanes) {
        if (one.server == &server && (!least || one.asked.size() < least->asked.size())) {
            least = &one;
        }
    }
    if (least && least->asked.empty()) {
        return least;
    }
    if (auto more = server.try_take(use::value, until)) {
        lanes.push_back({&server, std::move(*more), {}});
        return &lanes.back();
    }
    if (least) {
        return least->asked.size() < MAX_ASKED ? least : nullptr;
    }
    if (std::any_of(lanes.begin(), lanes.end(), [](const lane & one) { return !one.asked.empty(); })) {
        return nullptr;
    }
    // Whoever waits holds none, so that no two wait for each other.
    give_back();
    lanes.clear();
    lanes.push_back({&server, server.take(use::value, until), {}});
    return &lanes.back();
}

void ordered_get::wait(tier_deadline until) const {
    std::vector<pollfd> all;
    int                 timeout = milliseconds_until(until);
    for (const auto & one : lanes) {
        if (one.asked.empty()) {
            continue;
        }
        all.push_back({one.connection.get().descriptor(), one.connection.get().events(), 0});
        if (all.back().fd < 0) {
            timeout = 0; // it has more already
        }
    }
    const int n = ::poll(all.data(), all.size(), timeout);
    if ((n < 0 && errno != EINTR) || tier_clock::now() >= until) {
        for (const auto & one : lanes) {
            if (!one.asked.empty()) {
                one.server->account().fail(tier_failure::late, "it did not answer in time");
            }
        }
    }
}

void ordered_get::receive() {
    for (auto & one : lanes) {
        while (!one.asked.empty()) {
            auto got = one.connection->poll();
            if (!got) {
                break;
            }
            if (got->is_migrating()) {
                got->small = nullptr; // as if there were none
            }
            if (got->small) {
                one.connection->fail(*got);
            }
            ready[one.asked.front() % window] = std::move(got);
            one.asked.pop_front();
        }
    }
}

// Returns whether there is more to do.
bool ordered_get::take_ready(const taker & take, tier_counters & counters) {
    while (next_to_take < keys.size()) {
        auto & next = ready[next_to_take % window];
        if (!next) {
            return true;
        }
        tier_value value = std::move(next->value);
        next             = std::nullopt;
        if (!value.owner) {
            return false;
        }
        counters.read(value.bytes.size());
        if (!take(next_to_take++, std::move(value))) {
            return false;
        }
    }
    return false;
}

void ordered_get::give_back() {
    for (auto & one : lanes) {
        if (one.asked.empty()) {
            one.connection.give_back();
        }
    }
}

} // namespace atlas::resp
