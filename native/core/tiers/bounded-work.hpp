// Work of which nobody knows how long it takes, as of a file system on the network that may hang: on threads that are left
// behind where it takes too long.
#pragma once

#include "atlas-tier.hpp"

#include <functional>
#include <memory>
#include <string>

namespace atlas {

// Any thread.
class bounded_work {
  public:
    // At most so many pieces of work may be late at a time; then no more is begun.
    explicit bounded_work(size_t max_late);

    // Runs `work` on a thread of its own and waits for it. Throws what it threw, or tier_error (late) with the text where it
    // has not ended by then: it goes on, so it owns all that it uses. Throws std::system_error where there is no thread.
    void run(std::function<void()> work, tier_deadline until, const std::string & late) const;

  private:
    struct state;
    const size_t                 max_late;
    const std::shared_ptr<state> shared; // with work that outlives this object
};

} // namespace atlas
