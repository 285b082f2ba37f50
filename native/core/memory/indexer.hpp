// The thread that finds at the start which entries are on disk. Touches files without the store's mutex, and tells the
// catalog with it; the store makes it, and ends it.
#pragma once

#include "shared-state.hpp"

#include <thread>

namespace atlas::memory {

// Reads the header of every file under blocks/. Files that are damaged are removed; foreign ones are left alone.
class indexer {
  public:
    explicit indexer(shared_state & state) : state(state), thread([this] { run(); }) {}
    ~indexer() {
        state.stop_all();
        thread.join();
    }

  private:
    struct found_file {
        file_header header;
        uint64_t    bytes;
        int64_t     modified_ns;
    };

    shared_state &          state;
    std::vector<found_file> found; // not yet told to the catalog
    std::vector<digest>     keys;
    std::vector<digest>     plain; // of files that are to be encrypted
    uint64_t                damaged = 0, foreign = 0;
    size_t                  longest = 0; // blocks of the longest conversation found
    std::thread             thread; // last: it uses the others

    void run();
    bool scan(const std::string & path, int level);
    void look_at(const std::string & path, const std::string & name);
    void remove_damaged(const std::string & path);
    bool tell();
    void finish();
};

} // namespace atlas::memory
