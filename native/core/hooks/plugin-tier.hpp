// A tier that a plugin brings, as the memory sees it: each member is one or several calls that can be left. What the plugin
// answers is taken as bytes that nobody has checked.
#pragma once

#include "atlas-hook-calls.hpp"
#include "atlas-tier.hpp"

#include <mutex>

namespace atlas {

// The tier of a number, whichever plugin brings it now. Calls that are under way when another plugin does so end with the
// one before. The calls outlive it.
class plugin_tier : public tier {
  public:
    static constexpr size_t BATCH    = 4; // values that a plugin is asked for at once
    static constexpr size_t MAX_KEYS = 1024; // of one call

    plugin_tier(hook_calls & calls, int number);

    const tier_traits & traits() const override { return about; }

    std::vector<bool> probe(const std::vector<std::string> & keys, tier_deadline until) override;
    void              get(const std::vector<std::string> & keys, tier_deadline until,
                          const std::function<bool(size_t index, tier_value value)> & take) override;
    void put(const std::string & key, const std::vector<std::string_view> & pieces, std::chrono::seconds ttl,
             tier_deadline until) override;
    std::vector<bool> keep(const std::vector<std::string> & keys, std::chrono::seconds ttl,
                           tier_deadline until) override;
    void              remove(const std::vector<std::string> & keys, tier_deadline until) override;
    void              ping(tier_deadline until) override;
    tier_counts       counts() const override;

  private:
    using names = std::vector<std::string>;

    hook_calls &      calls;
    const int         number;
    const tier_traits about;

    mutable std::mutex mutex; // guards what is counted
    tier_counts        counted;
    std::string        missed; // which of its members was late last

    http_response     ask(const char * what, const names & keys, size_t first, size_t n,
                          const std::vector<std::string_view> & payload, std::chrono::seconds ttl, tier_deadline until);
    std::vector<bool> ask_which(const char * what, const names & keys, std::chrono::seconds ttl, tier_deadline until);
    void              note_held(const http_response & answer);
    void              note_time(const char * what, const hook_answer & answer, hook_tally & tally);
};

} // namespace atlas
