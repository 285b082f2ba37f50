// Which entries are being fetched from the tier that servers share, so that one request fetches what several want. Touches
// its own lock only; HTTP threads call it.
#pragma once

#include "atlas-tier.hpp"
#include "digest.hpp"

#include <algorithm>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <unordered_set>
#include <vector>

namespace atlas::memory {

// Any thread.
class shared_flights {
  public:
    // Takes the keys, or none where somebody else has one of them: then returns false.
    bool begin(const std::vector<digest> & keys) {
        const std::lock_guard<std::mutex> held(mutex);
        if (has_any(keys)) {
            return false;
        }
        under_way.insert(keys.begin(), keys.end());
        return true;
    }

    void end(const digest & key) {
        {
            const std::lock_guard<std::mutex> held(mutex);
            under_way.erase(key);
        }
        changed.notify_all();
    }

    // Waits until nobody has any of the keys. Returns false where the time is over, or is_gone says so, which is asked every
    // 50 ms and may be empty.
    bool wait(const std::vector<digest> & keys, tier_deadline until, const std::function<bool()> & is_gone) {
        constexpr std::chrono::milliseconds POLL{50};
        std::unique_lock<std::mutex>        held(mutex);
        while (has_any(keys)) {
            if (tier_clock::now() >= until) {
                return false;
            }
            changed.wait_until(held, std::min(until, tier_clock::now() + POLL));
            if (is_gone) {
                held.unlock();
                if (is_gone()) {
                    return false;
                }
                held.lock();
            }
        }
        return true;
    }

  private:
    std::mutex                              mutex;
    std::condition_variable                 changed;
    std::unordered_set<digest, digest_hash> under_way;

    bool has_any(const std::vector<digest> & keys) const {
        return std::any_of(keys.begin(), keys.end(), [this](const digest & key) { return under_way.count(key) > 0; });
    }
};

} // namespace atlas::memory
