// What the store's threads do with a catalog, one step at a time, so that a test says what happens when.
#pragma once

#include "catalog-audit.hpp"
#include "memory-test.hpp"

#include <map>

namespace memory_test {

// A catalog and the files of its directory, as the writer, the readers and the indexer of a store would have them.
struct catalog_driver {
    struct file {
        memory::file_header header;
        uint64_t            bytes;
    };

    memory_options                         given;
    std::unique_ptr<memory::catalog>       catalog;
    std::map<memory::digest, file>         files;
    std::map<memory::digest, memory_entry> known; // all that was ever put

    explicit catalog_driver(const memory_options & given) : given(given) { open(); }

    // Begins anew with what is on the disk. `last_use` tells the time of a file.
    void open(const std::function<int64_t(const memory::digest &)> & last_use = [](const auto &) { return 1; });

    memory::digest put(memory_entry entry, const std::optional<memory::digest> & supersedes = {},
                       const memory_access & access = {});

    // As memory_store::find(), with files that are always good.
    memory::match_plan find(const memory_tokens & tokens, bool need_checkpoint, const memory_access & access = {});

    // The next thing that a writer would do; `works`: the system does what it is asked. Returns false when there is none.
    bool write(bool works = true);
};

memory::digest key_of(const std::string & hex);

} // namespace memory_test
