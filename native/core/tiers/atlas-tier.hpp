// A place beyond this machine's RAM and disk where servers keep entries: a store on the network, a directory that several
// machines mount, or what a plugin brings. A tier moves bytes by key and decides nothing; the memory decides what is read,
// written and kept, checks every byte that comes back, and leaves a tier alone that fails.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace atlas {

using tier_clock    = std::chrono::steady_clock;
using tier_deadline = tier_clock::time_point;

// Bytes that a tier gave, as they came: nobody has checked them.
struct tier_value {
    std::shared_ptr<const void> owner; // keeps `bytes` valid
    std::string_view            bytes;
};

enum class tier_failure : uint8_t {
    unreachable, // no connection, or it broke
    late, // the deadline passed
    denied, // wrong password, or no right to do this
    full, // it takes no more
    broken, // an answer that makes no sense, or a command that it does not know
};

// what() names the tier's address, without a password, and what to do where something can be done.
class tier_error : public std::runtime_error {
  public:
    tier_error(tier_failure kind, const std::string & text) : std::runtime_error(text), kind(kind) {}
    const tier_failure kind;
};

struct tier_traits {
    std::string scheme; // "valkey", "file", "s3", or what a plugin calls it
    std::string address; // for logs and the status; without a password
    bool        is_probed = true; // one probe() of many keys costs about a round trip; else get() is asked at once
    bool        expires   = true; // put() and keep() heed their ttl
    size_t      n_at_once = 1; // values that one get() has under way at a time
    uint64_t    max_value_bytes = 512ull << 20; // of a larger one that others wrote nothing is read
};

// Counters since the start.
struct tier_counts {
    uint64_t read_bytes = 0, written_bytes = 0;
    uint64_t reads = 0, writes = 0; // values
    double   read_s = 0, write_s = 0; // seconds that values were under way
    double   round_trip_s = 0; // of the last probe or ping; 0: none yet

    std::optional<uint64_t> held_entries, held_bytes; // that it has of all who write to it, where it tells
};

// Reads (probe, get, ping) may come from several threads at a time, writes (put, keep, remove) from one. They share no
// connection, so that a large write delays no read. Every call ends by its deadline or soon (50 ms) after it. Members
// throw tier_error, and std::bad_alloc; the next call after an error connects anew. A constructor connects to nothing.
// Never called by the token loop.
class tier {
  public:
    virtual ~tier() = default;

    // This and counts() never wait: no lock that is held while bytes are under way.
    virtual const tier_traits & traits() const = 0;

    // Whether each of the keys is there.
    virtual std::vector<bool> probe(const std::vector<std::string> & keys, tier_deadline until) = 0;

    // Calls take() on this thread with the values in the order of the keys, as soon as each is there. Ends at the first
    // that is missing, and where take() returns false.
    virtual void get(const std::vector<std::string> & keys, tier_deadline until,
                     const std::function<bool(size_t index, tier_value value)> & take) = 0;

    // Stores the pieces, one behind the other, as one value, whole or not at all. More than max_value_bytes are refused as full.
    virtual void put(const std::string & key, const std::vector<std::string_view> & pieces, std::chrono::seconds ttl,
                     tier_deadline until) = 0;

    // Has the values stay for ttl from now on, and counts them as used, in the order of the keys. Whether each is there; where
    // a tier does not expire, it does nothing, and says yes.
    virtual std::vector<bool> keep(const std::vector<std::string> & keys, std::chrono::seconds ttl,
                                   tier_deadline until) = 0;

    // Removes values; that one is not there is fine.
    virtual void remove(const std::vector<std::string> & keys, tier_deadline until) = 0;

    // Whether it works again.
    virtual void ping(tier_deadline until) = 0;

    virtual tier_counts counts() const = 0;

    // Has values of more than so many bytes not be read from now on, as no server writes one: what others wrote takes no room
    // before it is checked. At most traits().max_value_bytes. Any thread, also beside reads, which may go by the old limit.
    virtual void limit_values([[maybe_unused]] uint64_t max_bytes) {}
};

} // namespace atlas
