// The directory of layer 2: where files are, and how one gets there whole or not at all. docs/memory-format.md.
#pragma once

#include "entry-file.hpp"

#include <functional>
#include <set>

namespace atlas::memory {

// All members throw std::system_error, whose text names the path and what the system said.
class directory {
  public:
    directory(std::string path, bool sync_each) : root(std::move(path)), sync_each(sync_each) {}

    const std::string & path() const { return root; }
    std::string         blocks_path() const { return root + "/blocks"; }
    std::string         file_path(const digest & key) const;

    // Makes what is missing of the directory, for this user only. Any thread.
    void make() const;

    // Removes what writers that are no more left half-written. Any thread.
    void remove_leftovers() const;

    // Puts a file in its place, under header.key; the sums in the header are filled in. Calls `rest` after each MiB.
    // Returns the size of the file. Once sync() has returned it survives a power cut. One thread at a time.
    uint64_t write(file_header header, const state_bytes & data, const std::function<void()> & rest);

    // Removes a file; that it is not there is fine. Any thread.
    void remove(const digest & key) const;

    // Makes the names of the files durable; does nothing without sync_each. One thread at a time, with write().
    void   sync();
    size_t n_unsynced() const { return unsynced.size(); }

  private:
    std::string           root;
    bool                  sync_each;
    std::set<std::string> unsynced; // directories with names that a power cut may lose; not kept without sync_each

    void make_in_blocks(const std::string & path);
    void add_unsynced(const std::string & path);
};

enum class read_result { good, missing, foreign, damaged, failed };

struct file_facts {
    uint64_t bytes       = 0;
    uint64_t modified_ns = 0; // since 1970
    int      error       = 0; // errno, where the system refused
};

// Reads the header of a file, and with `data` also its data, which it checks. Any thread. `failed`: the system refused.
read_result read_file(const std::string & path, file_header & header, file_facts & facts, state_bytes * data = nullptr);

// Gives the file the time of now, by which the next start knows when it was used; no harm where that is not allowed.
void mark_used(const std::string & path);

} // namespace atlas::memory
