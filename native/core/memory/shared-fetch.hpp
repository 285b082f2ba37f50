// Brings near what a tier beyond this machine has of a prompt. HTTP threads call it; it takes the store's mutex in steps,
// and waits for the network without it.
#pragma once

#include "shared-link.hpp"
#include "shared-plan.hpp"
#include "shared-state.hpp"

namespace atlas::memory {

// One lookup's; one thread at a time. What it refers to outlives it.
class shared_fetch {
  public:
    shared_fetch(shared_state & state, shared_link & link, size_t block_tokens, const memory_access & access,
                 const std::function<bool()> & is_gone, tier_deadline until);

    // As memory_store::fetch().
    fetch_result run(const digest & root, const int32_t * tokens, size_t n_tokens, bool need_checkpoint);

    // After run(): when those that are asked next have to be done, and whether there is nothing left to ask for.
    tier_deadline deadline() const { return all_until; }
    bool          is_complete() const { return has_all; }

  private:
    shared_state &                state;
    shared_link &                 link;
    const size_t                  block_tokens;
    const memory_access &         access;
    const std::function<bool()> & is_gone;
    const tier_deadline           began;

    const int32_t * tokens = nullptr;
    digest          root   = {};
    tier_deadline   until;
    tier_deadline   all_until;
    bool            has_asked = false;
    bool            has_all   = false;
    bool            is_over   = false; // an error, or what came was not what it should be

    fetch_result result;

    struct guard;

    local_prefix look(size_t n_tokens, bool need_checkpoint) const;
    double       saved_s(size_t n) const { return access.seconds_per_token * (double) n; }
    void         limit_to(double worth_s);
    bool         is_worth(const shared_plan & plan, size_t n_before);
    bool         goes_on() const;

    std::optional<std::vector<bool>> ask(const std::vector<shared_piece> & pieces);

    void get(const shared_plan & plan);
    bool take(const shared_piece & piece, const std::string & name, const tier_value & value, const room_for & has_room,
              memory_entry_ptr & kept);
    bool keep(const memory_entry_ptr & entry, const shared_piece & piece);
    void failed(const tier_error & error, std::optional<tier_deadline> asked);
    bool get_or_wait(const shared_plan & plan);

    std::optional<shared_plan> choose(const local_prefix & here, size_t n_tokens, bool need_checkpoint);

    memory_entry_ptr entry_of(const shared_piece & piece, const tier_value & value) const;
};

} // namespace atlas::memory
