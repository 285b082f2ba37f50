#include "resp-servers.hpp"

#include "key-slot.hpp"

#include <algorithm>

namespace atlas::resp {

constexpr size_t MAX_SERVERS = 1000; // more than this, the specification advises against

connection_pool & server_map::at(const std::string & key) const {
    if (of_slot.empty()) {
        return *servers.front();
    }
    const uint16_t server = of_slot[slot_of(key)];
    if (server == NONE) {
        servers.front()->account().fail(tier_failure::unreachable, "no server of its cluster serves this key");
    }
    return *servers[server];
}

server_list::server_list(const tier_url & url, const tier_limits & limits)
    : url(url), cluster(url.flag("cluster", url.hosts.size() > 1)),
      n_connections(url.number("connections", limits.n_connections, 16)), max_value_bytes(limits.max_value_bytes) {
    url.database(); // checks it
    if (url.hosts.size() > 1 && !cluster) {
        url.refuse("several hosts are those of a cluster");
    }
    if (url.scheme == "valkeys") {
        tls = std::make_shared<const tls_client>(url);
    }
    if (!cluster) {
        auto map     = std::make_shared<server_map>();
        map->servers = {pool_of(url.hosts.front())};
        known        = std::move(map);
    }
}

std::shared_ptr<connection_pool> server_list::pool_of(const tier_host & host) {
    const std::string name = text_of(host);
    std::lock_guard   held(mutex);
    auto &            pool = pools[name];
    if (!pool) {
        auto account             = std::make_unique<server_account>();
        account->address         = url.scheme + "://" + name;
        account->host            = host;
        account->user            = url.user;
        account->password        = url.password;
        account->database        = url.database();
        account->tls             = tls;
        account->max_value_bytes = max_value_bytes;
        pool                     = std::make_shared<connection_pool>(std::move(account), n_connections);
    }
    return pool;
}

void server_list::limit_values(uint64_t max_bytes) {
    std::lock_guard held(mutex);
    max_value_bytes = max_bytes;
    for (const auto & [name, pool] : pools) {
        pool->limit_values(max_bytes);
    }
}

std::shared_ptr<const server_map> server_list::current(tier_deadline until) {
    std::unique_lock held(mutex);
    if (!asked.wait_until(held, until, [&] { return known || !is_asking; })) {
        throw tier_error(tier_failure::late, url.address() + ": it did not answer in time");
    }
    if (known) {
        return known;
    }
    is_asking = true;
    held.unlock();
    std::shared_ptr<const server_map> map;
    try {
        map = ask(until);
    } catch (...) {
        end_asking(nullptr);
        throw;
    }
    end_asking(map);
    return map;
}

void server_list::end_asking(std::shared_ptr<const server_map> found) {
    {
        std::lock_guard held(mutex);
        is_asking = false;
        known     = std::move(found);
    }
    asked.notify_all();
}

void server_list::is_wrong() {
    if (cluster) {
        std::lock_guard held(mutex);
        known = nullptr;
    }
}

// The first that answers, of those known: a cluster outlives the servers that its URL names.
std::shared_ptr<const server_map> server_list::ask(tier_deadline until) {
    std::vector<std::shared_ptr<connection_pool>> candidates;
    for (const auto & host : url.hosts) {
        candidates.push_back(pool_of(host));
    }
    {
        std::lock_guard held(mutex);
        for (const auto & [name, pool] : pools) {
            if (std::find(candidates.begin(), candidates.end(), pool) == candidates.end()) {
                candidates.push_back(pool);
            }
        }
    }
    for (size_t i = 0;; i++) {
        const auto now = tier_clock::now();
        const auto by  = now + (until - now) / (candidates.size() - i);
        try {
            auto lease = candidates[i]->take(use::probe, by);
            lease->send({command({"CLUSTER", "SLOTS"})}, by);
            const reply got = lease->read(by);
            if (!got.is_array()) {
                lease->fail(got);
            }
            lease.give_back();
            return read_map(got, candidates[i]->account().host);
        } catch (const tier_error &) {
            if (i + 1 == candidates.size()) {
                throw;
            }
        }
    }
}

std::shared_ptr<const server_map> server_list::read_map(const reply & slots, const tier_host & asked) {
    auto       map    = std::make_shared<server_map>();
    const auto broken = [&] {
        throw tier_error(tier_failure::broken, url.address() + ": its list of a cluster's slots makes no sense");
    };
    map->of_slot.assign(N_SLOTS, server_map::NONE);
    std::map<std::string, std::shared_ptr<connection_pool>> used;
    for (size_t i = 0; i < slots.small->elements; i++) {
        const valkeyReply & range = *slots.small->element[i];
        if (range.type != VALKEY_REPLY_ARRAY || range.elements < 3 || range.element[0]->type != VALKEY_REPLY_INTEGER ||
            range.element[1]->type != VALKEY_REPLY_INTEGER || range.element[2]->type != VALKEY_REPLY_ARRAY ||
            range.element[2]->elements < 2 || range.element[2]->element[1]->type != VALKEY_REPLY_INTEGER) {
            broken();
        }
        const long long     begin = range.element[0]->integer, end = range.element[1]->integer;
        const valkeyReply & name = *range.element[2]->element[0];
        const long long     port = range.element[2]->element[1]->integer;
        if (begin < 0 || end < begin || end >= N_SLOTS || port < 1 || port > 65535) {
            broken();
        }
        // A server that does not know its own name leaves it out: it is the one that was asked.
        const bool      has_name    = name.type == VALKEY_REPLY_STRING && name.len > 0 && name.str[0] != '?';
        const tier_host host        = {has_name ? std::string(name.str, name.len) : asked.name, (uint16_t) port};
        const auto [server, is_new] = used.emplace(text_of(host), nullptr);
        if (is_new) {
            if (used.size() > MAX_SERVERS) {
                broken();
            }
            server->second = pool_of(host);
            map->servers.push_back(server->second);
        }
        const auto at = std::find(map->servers.begin(), map->servers.end(), server->second) - map->servers.begin();
        std::fill(map->of_slot.begin() + begin, map->of_slot.begin() + end + 1, (uint16_t) at);
    }
    if (map->servers.empty()) {
        throw tier_error(tier_failure::unreachable, url.address() + ": no server of its cluster has any slots");
    }
    std::lock_guard held(mutex);
    pools = std::move(used); // those of the URL are made anew where they are needed
    return map;
}

} // namespace atlas::resp
