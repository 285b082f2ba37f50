// A tier that keeps records, too: small values that stay until they are removed, and of which the first writer is the only
// one. That is the one primitive that every kind of store has, and all that servers need to write one sequence together.
#pragma once

#include "atlas-tier.hpp"

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace atlas {

// Keys of records have the form of record_key(); of sets of names, that of name_set(). get() and remove() of a tier take keys
// of records as any others. All members from any thread; they end and throw as those of a tier do.
class record_tier : public tier {
  public:
    // Stores the value where the key has none. Returns false where it has one. Of several servers one is told that it did.
    // After an error the value may be there or not.
    virtual bool create(const std::string & key, std::string_view value, tier_deadline until) = 0;

    // Stores the value, whatever the key has.
    virtual void replace(const std::string & key, std::string_view value, tier_deadline until) = 0;

    // A set of names of 64 lower-case hexadecimal digits. Adding one that is there, and removing one that is not, is fine.
    virtual void add_name(const std::string & set, const std::string & name, tier_deadline until)    = 0;
    virtual void remove_name(const std::string & set, const std::string & name, tier_deadline until) = 0;

    // At most so many, up to MAX_NAMES, in their order, behind `after`. Others than such names are left out.
    static constexpr size_t          MAX_NAMES                  = 1000;
    virtual std::vector<std::string> names(const std::string & set, const std::string & after, size_t n_most,
                                           tier_deadline until) = 0;
};

// Other first words than those of state, which has rules of its own in some stores. owner: 64 hexadecimal digits; part: lower-case letters, digits and dots.
inline std::string record_key(const std::string & owner, const std::string & part) {
    return "atlas:record:" + owner + ":" + part;
}

constexpr char NAMES_OF_SESSIONS[] = "atlas:names:sessions";

// Whether it is 64 lower-case hexadecimal digits.
inline bool is_record_name(std::string_view text) {
    return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

// As make_tier(). A tier of its own: what it moves waits for nothing that moves state.
std::unique_ptr<record_tier> make_record_tier(const std::string & url, uint64_t max_value_bytes);

} // namespace atlas
