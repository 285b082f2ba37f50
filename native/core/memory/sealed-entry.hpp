// The encrypted file of an entry: docs/memory-format.md. Reads and writes through what it is given, piece by piece; any thread
// but the loop's.
#pragma once

#include "atlas-seal.hpp"
#include "directory.hpp"

#include <functional>
#include <string>

namespace atlas::memory {

constexpr size_t WRITE_PIECE = 1 << 20; // bytes

using write_at = std::function<void(const uint8_t * bytes, size_t n_bytes, uint64_t offset)>;

// As directory::write(), under a name. Returns the size of the file.
uint64_t write_sealed(const sealer & seal, const std::string & name, file_header header, const state_bytes & data,
                      const write_at & write, const std::function<void()> & rest);

// Reads the file of that name, of which `facts` has the size; fills in facts.error where the system refused. With `data` it
// reads that, too.
read_result read_sealed(const sealer & seal, int fd, const std::string & name, file_facts & facts, file_header & header,
                        state_bytes * data);

} // namespace atlas::memory
