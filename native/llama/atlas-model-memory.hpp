// The memory of one loaded model: what its state is made of, under which root it is kept, what copying it costs.
#pragma once

#include "atlas-cells.hpp"
#include "atlas-ewma-cost.hpp"
#include "atlas-memory-roots.hpp"
#include "atlas-memory.hpp"
#include "atlas-root-status.hpp"
#include "atlas-state-layout.hpp"
#include "atlas-step-cost.hpp"

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

namespace atlas {

struct model_description;
struct proof_context;

// Fewer tokens than this are sooner computed than looked up.
constexpr size_t MIN_GAIN_TOKENS = 16;

// Which of two contexts computed a sequence's state: the model's, or that of what drafts tokens for it.
enum class state_part : uint8_t { target, draft };

// The owner of the model makes one, and hands it to sequence_state. Of the members, cells and capturing are the decoding
// thread's; all others may be used by any thread.
class model_memory {
  public:
    // All must live as long as this object. probed: see probe_state().
    model_memory(memory_store & kept, root_status & status, const probed_state & probed);

    // The model was loaded, for the first time or another in its place: settles the root, now or once the model's files
    // are hashed and state of other builds and devices was tried. lineages: of all who may ask; what they used last is read
    // back into RAM. to_try: its model must live until stop_proving(). draft: what is added to a lineage for the state of what
    // drafts; empty: there is none. The thread that loads the model.
    void settle_root(const model_description & model, const llama_context * ctx,
                     const std::vector<std::string> & lineages, const proof_context & to_try,
                     const std::string & draft = "");

    // Before the model is unloaded; by the thread that loads it.
    void stop_proving() { roots.stop_proving(); }

    // After another model, or the same with other settings, took the place of the one before. The constructor sets the target's.
    void set_layout(const state_layout & now, state_part of = state_part::target) {
        (of == state_part::target ? target : draft).store(now, std::memory_order_release);
    }

    state_layout layout(state_part of = state_part::target) const {
        return (of == state_part::target ? target : draft).load(std::memory_order_acquire);
    }

    const memory_root * root() const { return roots.now(); }

    // Of a block, out of the context.
    step_cost & capturing(state_part of = state_part::target) {
        return of == state_part::target ? capturing_target : capturing_draft;
    }

    memory_store &    store;
    transfer_cost     copying; // state, from buffers into the context
    cell_reservations cells;

  private:
    step_cost                 capturing_target, capturing_draft;
    root_status &             status;
    memory_roots              roots;
    std::atomic<state_layout> target, draft{state_layout{}};
};

static_assert(std::atomic<state_layout>::is_always_lock_free, "the decoding thread reads it");

} // namespace atlas
