// The memory of the model that llama-server has loaded.
#pragma once

#ifdef LLAMA_ATLAS

#include "atlas-draft.h"
#include "atlas-model-memory.hpp"

#include <cstddef>
#include <string>
#include <vector>

struct common_params;

struct loaded_memory {
    atlas::model_memory model;
    bool                clears_idle = false; // slots, when another gets a task
    size_t              projector   = 0; // its number behind the adapters, for memory_root::hash_of()
    std::string         encoding; // settings that its state depends on
    loaded_draft        draft = {}; // HTTP threads read its name only, which stays

    // The loop's: which slots, by number, hold what is not kept, as of the last pass; and what the slot file that was read
    // last says of its state.
    std::vector<bool> inexact_slots   = {};
    std::string       slot_file_proof = {};

    // Names what makes state of images and sound; empty where that is not known yet, or there is none. Any thread.
    std::string encoder() const;
};

// Null where the memory takes no part. Set when a model is loaded for the first time, before HTTP threads pass upstream's
// is_ready, and the same from then on.
loaded_memory * atlas_loaded_memory();

// Where there may be a memory: begins to hash the files that the command line names, beside the loading of the model.
void atlas_begin_hashing(const common_params & params);

#endif // LLAMA_ATLAS
