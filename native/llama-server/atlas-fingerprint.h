#pragma once

#include <cstddef>
#include <string>

struct common_params;
struct llama_context;

// The root of every chain of this server: a hash, as 64 hexadecimal digits, of all that makes KV of one server useless
// to another. That is the model (size of its files and samples of their content), RoPE and attention settings, the types
// of K and V, the block size, what the state's layout depends on, the build of llama.cpp and the format of the memory. Reads the model
// file: for the time of loading only. has_checkpoints: whether anything but blocks is stored. Throws nothing; an unreadable model file gives a root of its own.
std::string atlas_fingerprint(const common_params & params, const llama_context * ctx, size_t block_tokens,
                              bool has_checkpoints);
