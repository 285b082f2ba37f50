// A hash of every byte of some files, made in a thread of its own and remembered from one start to the next.
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
    // Looks the files up in `cache`, a file of lines that nobody has to trust; those that it does not know are hashed in
    // a thread, from now on, and added to it. Empty: there is no cache.
    file_hashing(std::vector<std::string> paths, std::string cache);

    ~file_hashing() { give_up(); }

    file_hashing(const file_hashing &)             = delete;
    file_hashing & operator=(const file_hashing &) = delete;

    // Ends the thread soon, and the waiting for it: there are no hashes, where they are not there yet. What then() was
    // given has returned, and is not called any more. Does not wait for a disk.
    void give_up();

    // Whether the files of these names are those that are, or were, hashed without a problem.
    bool is_of(const std::vector<std::string> & paths) const;

    hashing_progress progress() const;

    // Waits until all is done, unless more than max_bytes are left to hash.
    void wait(uint64_t max_bytes) const;

    // For each file 32 hexadecimal digits, or "missing" where there is none; empty until all is done without a problem.
    std::vector<std::string> hashes() const;

    // Has `action` called once all is done, from the thread that hashed, or at once; only the last one that was given.
    void then(std::function<void()> action);

  private:
    struct job;
    std::shared_ptr<job> self; // the thread's too, which is not waited for
};

} // namespace atlas
