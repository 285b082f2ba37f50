// A directory that several machines mount, as a tier: file:///mnt/kv. Values are files with the layout of the memory on disk
// (docs/memory-format.md), so that the memory path of a server may be such a directory. Reads and writes files on threads of
// its own, as a file system on the network may hang.
#pragma once

#include "atlas-record-tier.hpp"
#include "bounded-work.hpp"

#include <atomic>
#include <mutex>

namespace atlas {

// Keys of state end with 64 hexadecimal digits behind a colon, or have nothing before them; of a key only these count. Records lie
// beside state, under records/ and names/. The directory
// itself is not made: it is a mount that may be missing. put() and keep() set a file's time, from which ttl counts; put()
// removes what is older, a 256th of the directory at a time.
class directory_tier : public record_tier {
  public:
    // path: absolute. Larger files are given as empty ones. sync_each: a value is on the disk before others may see it.
    explicit directory_tier(std::string path, uint64_t max_value_bytes = 512ull << 20, bool sync_each = true);

    const tier_traits & traits() const override { return about; }
    std::vector<bool>   probe(const std::vector<std::string> & keys, tier_deadline until) override;
    void                get(const std::vector<std::string> & keys, tier_deadline until,
                            const std::function<bool(size_t index, tier_value value)> & take) override;
    void put(const std::string & key, const std::vector<std::string_view> & pieces, std::chrono::seconds ttl,
             tier_deadline until) override;
    std::vector<bool> keep(const std::vector<std::string> & keys, std::chrono::seconds ttl,
                           tier_deadline until) override;
    void              remove(const std::vector<std::string> & keys, tier_deadline until) override;
    void              ping(tier_deadline until) override;
    tier_counts       counts() const override;
    void              limit_values(uint64_t max_bytes) override;

    bool create(const std::string & key, std::string_view value, tier_deadline until) override;
    void replace(const std::string & key, std::string_view value, tier_deadline until) override;
    void add_name(const std::string & set, const std::string & name, tier_deadline until) override;
    void remove_name(const std::string & set, const std::string & name, tier_deadline until) override;
    std::vector<std::string> names(const std::string & set, const std::string & after, size_t n_most,
                                   tier_deadline until) override;

  private:
    const std::string path;
    const bool        sync_each;
    const tier_traits about;

    std::atomic<uint64_t> max_read_bytes;

    bounded_work reading, writing;

    tier_clock::time_point swept      = {}; // the writing thread's, as the next
    unsigned               next_swept = 0;

    mutable std::mutex mutex; // guards counted
    tier_counts        counted;

    void counted_write(size_t n_bytes, tier_clock::time_point began);
    void work(const bounded_work & on, const char * what, tier_deadline until, std::function<void()> action) const;
    void sweep(std::chrono::seconds ttl, tier_deadline until);
};

} // namespace atlas
