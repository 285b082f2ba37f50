// Slot files: what POST /slots/N?action=save writes and action=restore reads.
//
// A file is llama.cpp's own, with a trailer behind it that stock does not read: which model it is of, its length, and a
// checksum of all that. Files of stock have none; they are believed as far as their shape can be checked.
#pragma once

#include "llama.h"

#include <cstddef>
#include <string>

// server-context.cpp, loop thread, in place of llama_state_seq_save_file: the file is complete when it appears under its
// name. Returns the bytes of llama.cpp's part; 0: nothing was saved, and the log says why.
size_t atlas_save_slot_file(llama_context * ctx, const char * path, llama_seq_id seq_id, const llama_token * tokens,
                            size_t n_tokens);

// server-context.cpp, loop thread, in place of llama_state_seq_load_file. Without `tokens` it gives their number only.
// Returns the bytes of llama.cpp's part. Throws std::runtime_error, which says what is wrong with the file: then the
// sequence holds what it held, or anything, and has to be emptied.
size_t atlas_load_slot_file(llama_context * ctx, const char * path, llama_seq_id seq_id, llama_token * tokens,
                            size_t capacity, size_t * n_tokens);

// HTTP thread, after a save: the file outlives a power loss. Throws std::runtime_error.
void atlas_sync_slot_file(const std::string & path);
