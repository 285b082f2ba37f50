// The thread that sends entries to a tier beyond this machine, tells it what is in use, and finds out when it works again.
// Waits for the network without the store's mutex, and for all that takes long on its thread of low priority; the store makes
// it, and ends it.
#pragma once

#include "low-priority-thread.hpp"
#include "shared-link.hpp"
#include "shared-state.hpp"

#include <thread>

namespace atlas::memory {

class sharer {
  public:
    // With the store's mutex: the queue is that of the link's tier, and outlives it.
    sharer(shared_state & state, shared_link & link, share_queue & queue)
        : state(state), link(link), queue(queue), thread([this] { run(); }) {}
    ~sharer() {
        state.stop_all();
        thread.join();
    }

  private:
    using lock = std::unique_lock<std::mutex>;

    shared_state &      state;
    shared_link &       link;
    share_queue &       queue;
    std::string         logged; // the problem that was logged last; empty: none, or it has ended
    tier_deadline       keep_at = tier_deadline::max(); // when the tier is told what is in use
    uint8_t             life    = 0; // of the tier, for which what is done now is done
    low_priority_thread background; // for work that takes long
    std::thread         thread; // last: it uses the others

    template <typename F> bool unlocked(lock & held, bool is_reading, F action);

    void                     run();
    void                     act(lock & held);
    void                     log_trouble(lock & held);
    bool                     step(lock & held);
    void                     try_again(lock & held);
    void                     remove(lock & held);
    void                     send(lock & held);
    bool                     send_one(lock & held, const share_job & job, const std::string & name);
    void                     settle(lock & held, const digest & key, bool is_there);
    void                     drop_all(lock & held);
    void                     keep(lock & held);
    std::vector<std::string> names_of(const std::vector<share_job> & jobs) const;
    void                     rest(lock & held, tier_clock::duration worked);
};

} // namespace atlas::memory
