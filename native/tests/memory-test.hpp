// Helpers of the memory's tests, and how a case is written.
#pragma once

#include "atlas-memory.hpp"

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                               \
            std::exit(1);                                                                                              \
        }                                                                                                              \
    } while (false)

// Defines and registers a case, which is given an empty directory.
#define CASE(name)                                                                                                     \
    static void                            name(const std::string & dir);                                              \
    static const memory_test::registration name##_registration(#name, name);                                           \
    static void                            name([[maybe_unused]] const std::string & dir)

namespace memory_test {

using namespace atlas;

constexpr size_t   BLOCK = 16;
constexpr uint64_t MiB   = 1 << 20;

extern const std::string ROOT;

struct registration {
    registration(const char * name, void (*run)(const std::string & dir));
};

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

// Waits for what another thread does; whoever runs the tests ends what never comes.
template <typename F> void wait_until(F condition) {
    while (!condition()) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
}

void wait_indexed(const memory_store & store);
void flush(memory_store & store);

std::vector<std::filesystem::path> files_of(const std::string & dir);
uint64_t                           bytes_of(const std::string & dir);
std::string                        file_of(const std::string & dir, const std::string & key);

} // namespace memory_test
