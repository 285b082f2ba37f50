// What is known of a tier beyond this machine: whether it works, what it costs, what it did. HTTP threads and its sharer
// use it; it takes its own lock only, for counting.
#pragma once

#include "atlas-ewma-cost.hpp"
#include "atlas-memory.hpp"
#include "shared-codec.hpp"
#include "shared-flights.hpp"
#include "shared-trouble.hpp"

#include <array>
#include <atomic>
#include <mutex>
#include <string>

namespace atlas::memory {

// Any thread.
class shared_link {
    const std::shared_ptr<atlas::tier>        owner; // these two before what refers to them
    const std::shared_ptr<const shared_codec> codec_owner;

  public:
    shared_link(int number, const shared_options & options);

    const int    number; // of the tier
    const double timeout_s; // of a lookup, for all tiers together

    atlas::tier &        place;
    const shared_codec & codec;
    shared_flights       flights;

    // Whether it is used. What is used again is tried before anything is read.
    void set_open(bool is_open);
    bool is_open() const;

    // Before the first try nothing is read, nor while it is in doubt whether it answers at all.
    bool may_read() const;

    // What does not work is tried at once.
    void try_now();

    void read_worked();
    // is_fair: there was time enough for an answer, so that a late one says something of the tier. Else its thread asks, with
    // time enough, before another request does.
    void read_failed(const tier_error & error, bool is_fair);
    void write_worked();
    void write_failed(const tier_error & error);

    struct troubles {
        bool          is_untried = false, try_reading = false, can_write = false;
        tier_deadline next_try; // of what is not to be tried yet; max: nothing
    };
    troubles now() const;

    // What reading costs. The sizes are those of the last entry of a kind.
    void     add_reading(double seconds, uint64_t bytes, entry_kind kind);
    double   seconds_for(uint64_t bytes) const { return byte_cost.seconds_per_unit() * (double) bytes; }
    double   round_trip_s() const { return place.counts().round_trip_s; }
    uint64_t bytes_of(entry_kind kind) const { return sizes.at((size_t) kind); }
    void     set_bytes_of(entry_kind kind, uint64_t bytes) { sizes.at((size_t) kind) = bytes; }

    // Whether so much time is more than what is worth it; now and then the answer is no all the same.
    bool is_too_slow(double seconds, double worth_s);

    // Changes counters: edit(stats) under the lock.
    template <typename F> void count(F edit) {
        const std::lock_guard<std::mutex> held(mutex);
        edit(counted);
    }
    shared_stats stats() const;
    std::string  problem() const; // empty: it works

    // The key that was read last, for a try.
    void        set_last_name(const std::string & name);
    std::string last_name() const;

  private:
    mutable std::mutex mutex; // guards the breakers, what was counted, and the name
    bool               is_in_use = false;
    bool               is_tried = false, is_doubted = false;
    tier_breaker       reading, writing;
    shared_stats       counted;
    std::string        last;

    ewma_cost                            byte_cost;
    std::array<std::atomic<uint64_t>, 3> sizes      = {};
    std::atomic<uint64_t>                n_too_slow = 0;
};

} // namespace atlas::memory
