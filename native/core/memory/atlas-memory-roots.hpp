// Under which root the loaded model's state is kept. The root follows from the model's files, and hashing them may take
// longer than loading them: until they are hashed, state is kept under a provisional root, in RAM only. The thread that
// loads the model sets roots, and so does the one that hashes; the token loop and HTTP threads read the present one
// without a lock.
#pragma once

#include "atlas-memory.hpp"
#include "atlas-root-records.hpp"

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
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

// What decides under which root state is kept, besides the hashes of files.
struct root_settings {
    std::string identity; // what decides what state means: state of another identity never fits
    std::string environment; // by what it is computed: state of another environment may fit
    std::string model; // the name of its file, for people
    std::string draft = {}; // behind a lineage it names whose state that of what drafts is; empty: nothing drafts
};

enum class proof_verdict { agrees, differs, unknown };

struct proof {
    proof_verdict verdict = proof_verdict::unknown;
    std::string   why; // for people: how far it is off, or why that cannot be told
};

// Tries whether state that others computed is that which this process would compute.
struct root_prover {
    size_t max_tokens      = 0; // of a beginning that it wants to have
    bool   need_checkpoint = false;

    // Nothing else may compute meanwhile: settle() waits for its end, however long it takes, and where the model's files are
    // only hashed after settle() returned, nothing is tried.
    bool is_alone = false;

    // Gets the beginnings of conversations that are kept under the root of a lineage. In a thread of its own; ends soon after
    // is_unwanted() says so. Empty: nothing is tried, and such state is left alone.
    std::function<proof(const std::string & root, const std::vector<memory_tokens> & beginnings,
                        const std::function<bool()> & is_unwanted)>
        prove;
};

// The root that is in force, and those that it replaced: they live as long as this object, so that any thread may go on
// with one that another has just replaced. A start makes two at most, and so does a model whose files were changed
// while the server slept.
//
// The memory's directory has a record of each root. A root whose record names this environment is ours. Where there are only
// such of other environments, state is kept under a provisional root until it was tried whether theirs fits.
class memory_roots {
  public:
    // Both must live as long as this object.
    memory_roots(memory_store & store, root_status & status);

    // Ends hashing: a root that is not known yet never will be.
    ~memory_roots();

    memory_roots(const memory_roots &)             = delete;
    memory_roots & operator=(const memory_roots &) = delete;

    // Null before settle(). Any thread, never waits.
    const memory_root * now() const { return current.load(std::memory_order_acquire); }

    // To be called by the thread that loads the model, when it was loaded: sets now(), at once or when its files are
    // hashed, and tells `status`. Then what these lineages used last is read back into RAM. settings: what KV depends on
    // besides the files. The last n_adapters of the files are adapters, of which only those count that a lineage names.
    // `files` has to live until the next call. A root that was not known yet is settled anew.
    void settle(file_hashing & files, const root_settings & settings, const std::vector<std::string> & lineages,
                size_t n_adapters = 0, const root_prover & prover = {});

    // Has no use of the prover any more when it returns. To be called by the thread that loads the model, before it unloads
    // it.
    void stop_proving();

  private:
    struct found; // what is known once the files are hashed

    memory_store & store;
    root_status &  status;
    root_records   records;

    std::atomic<const memory_root *> current{nullptr};

    std::mutex                                mutex;
    std::condition_variable                   proven;
    std::vector<std::unique_ptr<memory_root>> made; // guarded by mutex
    std::once_flag                            preloaded; // the store does it once
    int                                       n_provisional = 0; // the loading thread's

    std::thread       looking; // at state of other roots; guarded by mutex, as the next two
    bool              is_proving  = false;
    int               n_settled   = 0; // calls of settle()
    std::atomic<bool> is_unwanted = false; // what `looking` does

    const memory_root & set(std::unique_ptr<memory_root> root);
    void                set_provisional();
    void                become(const found & what, const std::string & root);
    int                 begin_to_settle();
    void                decide(std::shared_ptr<found> what, int settled, bool is_serving);
    void                wait_for_proof(bool is_alone);
    void                look_around(std::shared_ptr<const found> what, int settled);
    proof               try_root(const found & what, const std::string & root);
    void                prove(const found & what);
    void                tell_of_others(const found & what);
    void                replace(const memory_root & before, const memory_root & root);
};

} // namespace atlas
