// Tells under which root the loaded model's state is kept, or why none is kept, or why the root is not known yet.
// Touches the model's files by way of file_hashing; the thread that loads the model sets it, any thread reads it.
#pragma once

#include "atlas-file-hashing.hpp"

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace atlas {

// Every member may be called from any thread, except where it says otherwise.
class root_status {
  public:
    // memory_path: the directory of the memory, where hashes are remembered, too.
    explicit root_status(std::string memory_path) : path(std::move(memory_path)) {}

    // Begins to hash the files of the model, unless has_hashed() them. The result is valid until the next call. Both
    // from the thread that loads the model.
    file_hashing & hash_files(const std::vector<std::string> & paths);

    // Whether these files still are what they were when hash_files() began with them.
    bool has_hashed(const std::vector<std::string> & paths) const;

    // Sets the root, or the reason why there is none: then hashing ends. With both empty the root is not known before
    // the files are hashed, and until then state is kept in RAM only.
    void set(const std::string & root, const std::string & problem);

    // The files are hashed, and until set() it is tried whether state of another root fits.
    void set_trying();

    // Tells of state of other roots, as sentences: what became of trying it, and that nothing but such state is there.
    void set_proof(const std::string & text);
    void set_others(const std::string & text);

    // Ends hashing, and all waiting for it.
    void give_up();

    struct facts {
        bool                            is_settled = false; // a model was loaded; before that the others say nothing
        std::string                     root, problem;
        std::optional<hashing_progress> hashing; // while the root is not known for want of hashes
        bool                            is_trying = false;
        std::string                     proof, others;

        // Why state stays in RAM, as a sentence; empty where it may go to disk, or where none is kept.
        std::string why_not_on_disk() const;
    };
    facts now() const;

    // Waits, at most so many seconds, until the root is known or never will be.
    facts wait(double timeout_s) const;

  private:
    const std::string               path;
    mutable std::mutex              mutex;
    mutable std::condition_variable changed;
    std::unique_ptr<file_hashing>   files; // only the thread that loads the model changes it
    facts                           told;

    facts look() const;
};

} // namespace atlas
