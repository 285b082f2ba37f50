// Reads from tier 2 the entries that a lookup or the preloader needs. Reads files without the store's mutex, and tells
// the catalog with it; never called by the token loop.
#pragma once

#include "atlas-ewma-cost.hpp"
#include "shared-state.hpp"

#include <map>

namespace atlas::memory {

// Any thread, several at once.
class reader {
  public:
    explicit reader(shared_state & state) : state(state) {}

    // Reads one entry. A preload (is_demanded is false) does not count as a use, and its failures do not make lookups
    // leave the disk alone. Returns `failed` also where there is no memory for the entry.
    read_result read(match_piece & piece, bool is_demanded) noexcept;

    // Reads the entries that a plan lacks; `held` has those that were read for an earlier plan of the same lookup.
    // Where an entry could not be read, returns how many tokens can be had without it.
    std::optional<size_t> read_missing(match_plan & plan, std::map<digest, memory_entry_ptr> & held);

    // Whether reading would take longer than computing what it saves.
    bool is_too_slow(uint64_t n_bytes, double saves_s) { return cost.is_too_slow((double) n_bytes, saves_s); }

    // What reading a byte takes; 0: not known.
    double seconds_per_byte() const { return cost.seconds_per_byte(); }

  private:
    shared_state & state;
    transfer_cost  cost;

    read_result try_read(const digest & key, memory_entry & entry, file_header & header, file_facts & facts) const;
    void        read_all(const std::vector<match_piece *> & pieces);
};

} // namespace atlas::memory
