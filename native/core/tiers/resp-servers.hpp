// Which RESP server has a key: the only one there is, or the one of a cluster that its hash says.
#pragma once

#include "atlas-make-tier.hpp"
#include "resp-pool.hpp"
#include "tier-url.hpp"

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace atlas::resp {

// What servers there are at a time. Any thread.
struct server_map {
    std::vector<std::shared_ptr<connection_pool>> servers;
    std::vector<uint16_t> of_slot; // of servers; NONE: nobody has it; empty: all are the first's

    static constexpr uint16_t NONE = 0xffff;

    // Throws tier_error (unreachable) where nobody has the key.
    connection_pool & at(const std::string & key) const;
};

// Any thread.
class server_list {
  public:
    // Throws std::invalid_argument.
    server_list(const tier_url & url, const tier_limits & limits);

    // The servers as they were last known; a cluster is asked first, or after is_wrong(). Throws tier_error.
    std::shared_ptr<const server_map> current(tier_deadline until);

    // What is known of a cluster is so no more.
    void is_wrong();

    // As tier::limit_values(), of all servers.
    void limit_values(uint64_t max_bytes);

    bool   is_cluster() const { return cluster; }
    size_t n_reading() const { return n_connections; }

  private:
    std::shared_ptr<connection_pool>  pool_of(const tier_host & host);
    std::shared_ptr<const server_map> ask(tier_deadline until);
    void                              end_asking(std::shared_ptr<const server_map> found);
    std::shared_ptr<const server_map> read_map(const reply & slots, const tier_host & asked);

    const tier_url                    url;
    const bool                        cluster;
    const size_t                      n_connections;
    std::shared_ptr<const tls_client> tls;

    std::mutex                                              mutex; // of the rest
    std::condition_variable                                 asked;
    uint64_t                                                max_value_bytes;
    bool                                                    is_asking = false; // one thread at a time
    std::map<std::string, std::shared_ptr<connection_pool>> pools; // by host and port; those of the map, and of the URL
    std::shared_ptr<const server_map>                       known; // null: to be asked for
};

} // namespace atlas::resp
