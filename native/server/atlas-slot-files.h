// Slot files: what POST /slots/N?action=save writes and action=restore reads.
//
// A file is llama.cpp's own, with a trailer behind it that stock does not read: which model it is of, its length, and a
// checksum of all that. Files of stock have none; they are believed as far as their shape can be checked. Where the state is
// what a prefill would give, the trailer says for which tokens under which root of the memory: then it may be kept.
#pragma once

#include "llama.h"

#include <cstddef>
#include <string>
#include <vector>

struct common_adapter_lora_info;
struct server_prompt;

// server-context.cpp, loop thread, in place of llama_state_seq_save_file: the file is complete when it appears under its
// name. Returns the bytes of llama.cpp's part; 0: nothing was saved, and the log says why.
size_t atlas_save_slot_file(llama_context * ctx, const char * path, llama_seq_id seq_id, const llama_token * tokens,
                            size_t n_tokens, const server_prompt & prompt);

// server-context.cpp, loop thread, in place of llama_state_seq_load_file. Without `tokens` it gives their number only.
// Returns the bytes of llama.cpp's part. Throws std::runtime_error, which says what is wrong with the file: then the
// sequence holds what it held, or anything, and has to be emptied.
size_t atlas_load_slot_file(llama_context * ctx, const char * path, llama_seq_id seq_id, llama_token * tokens,
                            size_t capacity, size_t * n_tokens);

// Loop thread, after a file was loaded into the slot of the prompt. It does not say under which adapters and scales it was
// computed, which are taken to be those that the server has set now, and it is nobody's of several tenants. Where the file
// says that it is what a prefill gives under these, it is kept as if the slot had computed it.
void atlas_adopt(server_prompt & prompt, const std::vector<common_adapter_lora_info> & loaded);

// HTTP thread, after a save: the file outlives a power loss. Throws std::runtime_error.
void atlas_sync_slot_file(const std::string & path);
