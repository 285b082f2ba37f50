// Asks a policy that the program gave what is to stay in the memory, on a thread of its own, and tells the store.
#pragma once

#include "atlas-memory-policy.hpp"
#include "atlas-memory.hpp"

#include <array>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace atlas {

// Counted since the start.
struct policy_stats {
    std::vector<int> tiers; // that the policy is asked about
    uint64_t         batches = 0, events = 0;
    uint64_t         late     = 0; // full batches, behind which more may have waited
    uint64_t         failures = 0; // calls that threw, or answered what they may not
    double           seconds  = 0; // that the calls took
    std::string      problem; // why a tier's last call failed; empty: none did
};

// Takes the store's events; nothing else may. Any thread.
class policy_runner {
  public:
    // store: borrowed; has to outlive this object. Throws std::system_error where the system gives no more threads.
    policy_runner(memory_store & store, std::shared_ptr<AtlasMemoryPolicy> policy);
    ~policy_runner() { end(); }

    policy_runner(const policy_runner &)             = delete;
    policy_runner & operator=(const policy_runner &) = delete;

    // Waits for a call that is under way, makes no further one and lets the policy go. May be called twice, by one thread.
    void end();

    policy_stats stats() const;

  private:
    struct batch;

    memory_store &                     store;
    std::shared_ptr<AtlasMemoryPolicy> policy;

    const std::vector<int> tiers;

    mutable std::mutex         mutex; // guards all below; not held while the policy or the store is called
    std::condition_variable    changed;
    bool                       is_ending = false;
    policy_stats               counts; // but for tiers and problem
    std::array<std::string, 3> problems; // by tier
    std::thread                thread; // last: it uses the others

    void run();
    bool work();
    void order(int tier, const batch & happened);
    void note(int tier, const std::string & problem);
};

} // namespace atlas
