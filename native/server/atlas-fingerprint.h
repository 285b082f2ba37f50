// What makes KV of one server useless to another: the model's files, and settings.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

struct common_params;
struct llama_context;

// The files of which every byte matters: all parts of the model, and control vectors.
std::vector<std::string> atlas_fingerprint_files(const common_params & params);

// All the rest, as a text: RoPE and attention settings, overrides of metadata, the types of K and V, the block size, what
// the state's layout depends on, the build of llama.cpp and the format of the memory. has_checkpoints: whether anything
// but blocks is stored.
std::string atlas_fingerprint_settings(const common_params & params, const llama_context * ctx, size_t block_tokens,
                                       bool has_checkpoints);

// The root of every chain of this server, as 64 hexadecimal digits. hashes: of the files above, in their order.
std::string atlas_fingerprint(const std::string & settings, const std::vector<std::string> & hashes);
