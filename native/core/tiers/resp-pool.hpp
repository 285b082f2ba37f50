// The connections to one RESP server. Reads of values, probes and writes have their own, so that none waits behind a large
// value of another kind.
#pragma once

#include "resp-connection.hpp"

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

namespace atlas::resp {

enum class use { value, probe, write };

// Any thread. Outlives its leases.
class connection_pool {
  public:
    // A connection that nobody else uses. It is closed with the lease, unless it is given back.
    class lease {
      public:
        lease(connection_pool & pool, use kind) : pool(&pool), kind(kind) {}
        lease(lease && other) noexcept
            : pool(std::exchange(other.pool, nullptr)), kind(other.kind), held(std::move(other.held)) {}
        lease & operator=(lease &&) = delete;
        ~lease();

        connection * operator->() const { return held.get(); }
        connection & get() const { return *held; }

        // When all replies to what was sent have come.
        void give_back();

      private:
        friend class connection_pool;

        connection_pool *           pool;
        use                         kind;
        std::unique_ptr<connection> held;
    };

    // At most so many connections read values; the others are as many as calls need them.
    connection_pool(std::unique_ptr<server_account> account, size_t n_reading);

    // One that was given back, if it still works, or a new one. Waits where all are in use. Throws tier_error.
    lease take(use kind, tier_deadline until);

    // The same, at once: none where all are in use.
    std::optional<lease> try_take(use kind, tier_deadline until);

    const server_account & account() const { return *of; }
    void                   limit_values(uint64_t max_bytes) { of->max_value_bytes = max_bytes; }

  private:
    struct shelf {
        size_t                                   n_taken = 0, most = SIZE_MAX;
        std::vector<std::unique_ptr<connection>> idle;
    };

    lease                       connected(use kind, std::unique_lock<std::mutex> held, tier_deadline until);
    shelf &                     of_kind(use kind) { return shelves[(size_t) kind]; }
    std::unique_ptr<connection> idle_one(shelf & from);
    void                        end(lease & of, bool is_to_be_kept);

    const std::unique_ptr<server_account> of;
    std::mutex                            mutex;
    std::condition_variable               freed;
    shelf                                 shelves[3];
};

} // namespace atlas::resp
