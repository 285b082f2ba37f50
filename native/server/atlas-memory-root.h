// Under which root the loaded model's state is kept. It follows from the model's files, and hashing them may take longer
// than loading them does: until then state is kept under a root that stands for nothing, in RAM only.
#pragma once

#ifdef LLAMA_ATLAS

#include "atlas-memory.hpp"

#include <mutex>
#include <set>
#include <string>
#include <utility>

struct common_params;
struct llama_context;

// Never freed, so that any thread may go on with one that another has just replaced: a start makes two at most, and so does
// a model whose files were changed while the server slept. Every member may be called from any thread.
class memory_root {
  public:
    memory_root(std::string text, bool is_known) : text(std::move(text)), is_known(is_known) {}

    const std::string text; // 64 hexadecimal digits
    const bool        is_known;

    // The root under which a tenant's state is kept.
    std::string of(const std::string & tenant) const;

    // Of one that is not known: the tenants for whom of() was called.
    std::set<std::string> tenants() const;

    // How a request may use the memory, under this root.
    atlas::memory_access limit(atlas::memory_access access) const;

  private:
    mutable std::mutex            mutex;
    mutable std::set<std::string> asked;
};

// Where there may be a memory: begins to hash the files that the command line names, beside the loading of the model.
void atlas_begin_hashing(const common_params & params);

// The model was loaded: settles atlas_setup.root, now or once its files are hashed, and tells the runtime.
void atlas_settle_root(const common_params & params, const llama_context * ctx);

#endif // LLAMA_ATLAS
