// Reads from layer 2 what a match needs.
#pragma once

#include "atlas-unit-cost.hpp"
#include "shared-state.hpp"

#include <map>

namespace atlas::memory {

// Any thread, several at once.
class reader {
  public:
    explicit reader(shared_state & state) : state(state) {}

    // Reads one entry. Where no request asked for it, it does not count as used by that, and a disk that refuses is no
    // reason to leave it alone for a while. `failed` also where there is no memory for it.
    read_result read(match_piece & piece, bool is_asked_for) noexcept;

    // Reads what a plan lacks; `held` keeps what was read for a plan before. Returns, where something could not be read,
    // how many tokens can be had without it.
    std::optional<size_t> read_missing(match_plan & plan, std::map<digest, memory_entry_ptr> & held);

    // Whether reading would take longer than computing what it saves.
    bool is_dear(uint64_t n_bytes, double saves_s) { return cost.is_dear((double) n_bytes, saves_s); }

  private:
    shared_state & state;
    transfer_cost  cost;

    read_result try_read(const digest & key, memory_entry & entry, file_header & header, file_facts & facts) const;
    void        read_all(const std::vector<match_piece *> & pieces);
};

} // namespace atlas::memory
