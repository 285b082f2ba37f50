// Hashes every byte of some files in a thread of its own, and remembers the hashes from one start to the next. Touches
// these files and its cache; the thread that loads the model makes it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace atlas {

struct hashing_progress {
    uint64_t    bytes = 0, total = 0; // hashed so far, and of all files whose hash was not known
    bool        is_done = false;
    std::string problem; // why there will be no hashes; empty: there will, or are
};

// Every member may be called from any thread.
class file_hashing {
  public:
    // Looks the files up in `cache`, a file whose lines have a checksum each. A thread begins to hash those that it
    // does not know, and adds them to it. Empty: there is no cache.
    file_hashing(std::vector<std::string> paths, std::string cache);

    ~file_hashing() { give_up(); }

    file_hashing(const file_hashing &)             = delete;
    file_hashing & operator=(const file_hashing &) = delete;

    // Ends hashing soon, and all waiting for it; files that have no hash yet get none. When it returns, the action of
    // then() does not run and will not be called. Does not wait for a disk.
    void give_up();

    // Whether these are the files that are or were hashed, without a problem, and they are unchanged since.
    bool is_of(const std::vector<std::string> & paths) const;

    hashing_progress progress() const;

    // Waits until all is done, unless more than max_bytes are left to hash.
    void wait(uint64_t max_bytes) const;

    // For each file 32 hexadecimal digits, or "missing" where there is none; empty until all is done without a problem.
    std::vector<std::string> hashes() const;

    // Calls `action` once hashing has ended: from the thread that hashed, or at once where it has. A later call
    // replaces it.
    void then(std::function<void()> action);

  private:
    struct job;
    std::shared_ptr<job> self; // shared with the thread, which nobody joins
};

} // namespace atlas
