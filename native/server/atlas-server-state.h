// All that native/server keeps of one llama-server, as one object.
#pragma once

#ifdef LLAMA_ATLAS

#include "atlas-asleep.h"
#include "atlas-http-guard.h"
#include "atlas-inside.h"
#include "atlas-lineage.h"
#include "atlas-memory-setup.h"
#include "atlas-response-draft.h"
#include "atlas-runtime.hpp"
#include "atlas-settings.hpp"
#include "atlas-shutdown.h"

#include <atomic>
#include <memory>
#include <string>

struct common_params;
struct llama_vocab;

// Filled by atlas_server before the HTTP server starts; after that, what changes is in objects that any thread may use.
// Never destroyed: requests, and threads of plugins and of the memory, use it until the process has ended.
struct atlas_server_state {
    // What the command line gives, until start() has settled them and made the runtime of them.
    atlas::settings settings;
    std::string     config_file;

    std::unique_ptr<atlas::runtime> runtime; // empty: ATLAS takes no part
    std::unique_ptr<loaded_memory>  memory; // empty: it takes no part for the model

    std::string       route_prefix; // --api-prefix
    atlas_route_table routes; // upstream's handlers, as they serve
    bool              shows_slots   = true;
    bool              keeps_streams = true; // those that name a conversation, for clients that lose the connection
    std::string       slot_files; // what their paths start with

    atlas::response_defaults response_defaults;

    std::atomic<const llama_vocab *> vocab{nullptr}; // of the model that is loaded, where the memory takes part

    atlas_adapters   adapters;
    atlas_http_guard guard;
    atlas_sleep      sleep;
    atlas_ending     ending;
};

// Of this thread, while it has a scope; else of this process. atlas_server and its handlers are given theirs; this is for
// seams that have no object at hand.
atlas_server_state & atlas_state();

// As long as it lives, what this thread does is for that state: a program may have several engines.
class atlas_state_scope {
  public:
    explicit atlas_state_scope(atlas_server_state & of);
    ~atlas_state_scope();

    atlas_state_scope(const atlas_state_scope &)             = delete;
    atlas_state_scope & operator=(const atlas_state_scope &) = delete;

  private:
    atlas_server_state * const before;
};

// Makes the runtime of the settings, which are those of `state`, and starts it; it stays empty where they have ATLAS off.
// Returns false where the server must not start; the log says why. Throws std::invalid_argument. policy: of the program's, or
// empty.
bool atlas_start_runtime(atlas_server_state & state, const common_params & params,
                         const atlas::tenant_options & tenants, bool has_model,
                         std::shared_ptr<atlas::AtlasMemoryPolicy> policy = nullptr);

// Has our log lines be written to llama.cpp's log.
void atlas_use_llama_log();

// Whether the error that this thread is answering came from a handler of ours.
bool & atlas_is_error_of_handler();

#endif // LLAMA_ATLAS
