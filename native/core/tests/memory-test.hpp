// Helpers of the memory's tests.
#pragma once

#include "atlas-memory.hpp"
#include "cases.hpp"
#include "entry-file.hpp"

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace memory_test {

using namespace atlas;
using cases::wait_until;

constexpr size_t   BLOCK = 16;
constexpr uint64_t MiB   = 1 << 20;

extern const std::string ROOT;

memory_options options(const std::string & dir = "", uint64_t ram_bytes = 64 * MiB, uint64_t disk_bytes = 64 * MiB);
std::string    root_of(int n);

memory_tokens some_tokens(uint32_t seed, size_t n);
memory_tokens slice(const memory_tokens & tokens, size_t begin, size_t end);

// What an entry holds follows from its key, so that every reader can check it.
state_bytes  data_of(const std::string & key, size_t n_bytes);
memory_entry make_entry(entry_kind kind, const std::string & parent, const memory_tokens & tokens, size_t n_bytes);

std::string put(memory_store & store, entry_kind kind, const std::string & parent, const memory_tokens & tokens,
                size_t n_bytes = 1000, const std::string & supersedes = "");

// Puts a conversation as blocks and a tail; returns their keys.
std::vector<std::string> put_all(memory_store & store, const memory_tokens & tokens, size_t n_bytes = 1000);

// Finds, and checks whatever is found.
memory_match find(memory_store & store, const memory_tokens & tokens, bool need_checkpoint = false,
                  const std::string & root = ROOT);

void wait_indexed(const memory_store & store);
void flush(memory_store & store);

std::vector<std::filesystem::path> files_of(const std::string & dir);
uint64_t                           bytes_of(const std::string & dir);
// Puts a file where a directory is, and the directory back in one step, between which nobody can make another.
void put_away(const std::string & path);
void bring_back(const std::string & path);

std::string file_of(const std::string & dir, const std::string & key);

// Writes the file of an entry with right checksums and key, whatever else its header says; returns the key.
std::string write_file(const std::string & dir, memory::file_header header, size_t n_bytes);

} // namespace memory_test
