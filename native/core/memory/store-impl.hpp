// What a store is made of. The threads are destroyed before what they work on.
#pragma once

#include "atlas-memory.hpp"
#include "buffer-pool.hpp"
#include "indexer.hpp"
#include "preloader.hpp"
#include "reader.hpp"
#include "shared-link.hpp"
#include "shared-state.hpp"
#include "sharer.hpp"
#include "writer.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace atlas {

using namespace memory;

struct memory_store::impl {
    explicit impl(memory_options & given)
        : options(given), state(options), stocker(state.is_busy), disk_reader(state) {}

    const memory_options     options;
    shared_state             state;
    buffer_stocker           stocker;
    reader                   disk_reader;
    std::unique_ptr<writer>  disk_writer;
    std::unique_ptr<indexer> disk_indexer;
    std::atomic<bool>        is_overflow_logged{false}; // of sessions

    std::unique_ptr<preloader> disk_preloader;

    // Tiers beyond this machine, by number from 3. They come, and none goes: one that is not used any more is closed.
    std::array<std::unique_ptr<shared_link>, N_LINKED_TIERS> links;
    std::array<std::unique_ptr<sharer>, N_LINKED_TIERS>      sending;
    std::array<std::atomic<shared_link *>, N_LINKED_TIERS>   linked = {}; // those that are used

    // Of the model's entries; 0: not known yet. A tier that comes is told, and all are when it changes.
    std::atomic<uint64_t> expected_block = 0; // bytes of a block's file
    std::atomic<uint64_t> largest_entry  = 0; // bytes of an entry's state
    void                  tell_sizes(shared_link & link) const;
    void                  tell_all_sizes() const;

    // Calls act(link) for those that are used up to max_tier, in order, until it returns false. Any thread.
    template <typename F> void for_links(int max_tier, F act) const {
        for (int tier = SHARED_TIER; tier <= std::min(max_tier, MAX_TIER); tier++) {
            if (shared_link * link = linked.at((size_t) (tier - SHARED_TIER)); link && !act(*link)) {
                return;
            }
        }
    }

    // Of one of the chains that a session has.
    std::optional<session>  copy(const std::string & id);
    void                    restore(const std::string & id, const session & was);
    std::optional<uint64_t> remove(const std::string & id, bool with_entries);
    // Calls act(keys, n_keys) under the lock for a few entries at a time.
    template <typename F> void for_parts(const std::vector<digest> & chain, F act);
};

} // namespace atlas
