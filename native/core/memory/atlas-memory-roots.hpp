// Under which root the loaded model's state is kept. The root follows from the model's files, and hashing them may take
// longer than loading them: until they are hashed, state is kept under a provisional root, in RAM only. The thread that
// loads the model sets roots, and so does the one that hashes; the token loop and HTTP threads read the present one
// without a lock.
#pragma once

#include "atlas-memory.hpp"

#include <atomic>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace atlas {

class file_hashing;
class root_status;

// Every member may be called from any thread.
class memory_root {
  public:
    // adapters: by their numbers in a lineage, what is to stand for them.
    memory_root(std::string text, bool is_known, std::vector<std::string> adapters = {})
        : text(std::move(text)), is_known(is_known), adapters(std::move(adapters)) {}

    const std::string text; // 64 hexadecimal digits
    const bool        is_known;

    // The root under which state of a lineage is kept: a tenant's name, or none, and behind it the numbers and scales of
    // the adapters that it was computed under, as " 0:0x1p+0 2:0x1p-1".
    std::string of(const std::string & lineage) const;

    // The hash of an adapter's file; empty where it is not known.
    std::string hash_of(size_t adapter) const { return adapter < adapters.size() ? adapters[adapter] : ""; }

    // The lineages for which of() was called, of a root that is not known.
    std::set<std::string> lineages() const;

    // How a request may use the memory, under this root.
    memory_access limit(memory_access access) const;

  private:
    const std::vector<std::string> adapters;

    mutable std::mutex            mutex;
    mutable std::set<std::string> asked;
};

// The root that is in force, and those that it replaced: they live as long as this object, so that any thread may go on
// with one that another has just replaced. A start makes two at most, and so does a model whose files were changed
// while the server slept.
class memory_roots {
  public:
    // Both must live as long as this object.
    memory_roots(memory_store & store, root_status & status) : store(store), status(status) {}

    // Ends hashing: a root that is not known yet never will be.
    ~memory_roots();

    memory_roots(const memory_roots &)             = delete;
    memory_roots & operator=(const memory_roots &) = delete;

    // Null before settle(). Any thread, never waits.
    const memory_root * now() const { return current.load(std::memory_order_acquire); }

    // To be called by the thread that loads the model, when it was loaded: sets now(), at once or when its files are
    // hashed, and tells `status`. Then what these lineages used last is read back into RAM. settings: what KV depends on
    // besides the files. The last n_adapters of the files are adapters, of which only those count that a lineage names.
    // `files` has to live until the next call.
    void settle(file_hashing & files, const std::string & settings, const std::vector<std::string> & lineages,
                size_t n_adapters = 0);

  private:
    memory_store & store;
    root_status &  status;

    std::atomic<const memory_root *> current{nullptr};

    std::mutex                                mutex;
    std::vector<std::unique_ptr<memory_root>> made; // guarded by mutex
    std::once_flag                            preloaded; // the store does it once
    int                                       n_provisional = 0; // the loading thread's

    const memory_root & set(std::unique_ptr<memory_root> root);
    const memory_root & set_known(const std::string & settings, std::vector<std::string> hashes, size_t n_adapters);
    void                replace(const memory_root & before, const memory_root & root);
    void                preload(const memory_root & root, const std::vector<std::string> & lineages);
};

} // namespace atlas
