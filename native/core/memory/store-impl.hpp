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

    std::unique_ptr<shared_link> link; // empty: there is no tier 3
    std::unique_ptr<sharer>      sending;
    uint64_t                     largest_entry = 0; // that expect_entries_up_to() was told of

    // Of one of the chains that a session has.
    std::optional<session>  copy(const std::string & id);
    void                    restore(const std::string & id, const session & was);
    std::optional<uint64_t> remove(const std::string & id, bool with_entries);
    // Calls act(keys, n_keys) under the lock for a few entries at a time.
    template <typename F> void for_parts(const std::vector<digest> & chain, F act);
};

} // namespace atlas
