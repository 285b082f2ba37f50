// The records that servers share, as Python asks for them: named and sealed, bounded in size and time, and left alone while
// their place does not work. What they mean, Python knows.
#pragma once

#include "atlas-record-tier.hpp"
#include "fleet-seal.hpp"
#include "shared-trouble.hpp"

#include <memory>
#include <mutex>
#include <string>
#include <string_view>

namespace atlas {

// Any thread but the loop's: it waits for the network.
class shared_records {
  public:
    // seal: null: names and values are plain. timeout_s: for each query.
    shared_records(std::unique_ptr<record_tier> place, std::shared_ptr<const fleet_seal> seal, double timeout_s)
        : place(std::move(place)), seal(std::move(seal)), timeout_s(timeout_s) {}

    // Answers ATLAS_QUERY_RECORDS. Throws std::bad_alloc, and what a wrong argument makes json throw.
    std::string answer(std::string_view argument);

  private:
    struct asked;

    std::string owner_of(const std::string & text) const;
    std::string key_of(const asked & what, size_t index) const;
    std::string perform(const asked & what, tier_deadline until);
    std::string get(const asked & what, tier_deadline until);
    std::string state() const;
    bool        may_try(bool is_patient) const;
    void        worked();
    void        failed(const tier_error & error);

    const std::unique_ptr<record_tier>      place;
    const std::shared_ptr<const fleet_seal> seal;
    const double                            timeout_s;

    mutable std::mutex   mutex; // of the rest; never held while anything is under way
    memory::tier_breaker breaker;
    bool                 is_checked = false; // that of two creates one fails
};

// The answer where nothing is shared.
std::string no_shared_records();

} // namespace atlas
