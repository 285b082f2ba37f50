// Values in the order of their keys, over several connections of each server at a time, on one thread.
#pragma once

#include "resp-servers.hpp"
#include "tier-counters.hpp"

#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace atlas::resp {

constexpr size_t MAX_ASKED =
    2; // values that a connection is asked for at a time: more of them in replies make servers evict

// One call of tier::get(). A connection that has replies outstanding at its end is closed.
class ordered_get {
  public:
    using taker = std::function<bool(size_t index, tier_value value)>;

    // Gets keys[begin..]. At most `window` values are here that were not taken yet.
    ordered_get(const server_map & map, const std::vector<std::string> & keys, size_t begin, size_t window);

    // Throws tier_error; moved_error where a server has a key no more. What was taken before counts.
    void run(tier_deadline until, const taker & take, tier_counters & counters);

    size_t n_taken() const { return next_to_take; }

  private:
    struct lane {
        connection_pool *      server;
        connection_pool::lease connection;
        std::deque<size_t>     asked; // indices of keys, in the order of the replies
    };

    void   ask(tier_deadline until);
    lane * lane_for(connection_pool & server, tier_deadline until);
    bool   take_ready(const taker & take, tier_counters & counters);
    void   receive();
    void   wait(tier_deadline until) const;
    void   give_back();

    const server_map &                map;
    const std::vector<std::string> &  keys;
    const size_t                      window;
    size_t                            next_to_ask, next_to_take;
    std::vector<lane>                 lanes;
    std::vector<std::optional<reply>> ready; // by index modulo window
};

} // namespace atlas::resp
