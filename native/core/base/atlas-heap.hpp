#pragma once

namespace atlas {

// Limits the heaps of the C library's malloc to two, unless the environment chooses (MALLOC_ARENA_MAX,
// GLIBC_TUNABLES). Once, early: heaps that exist stay. Without glibc nothing happens.
//
// glibc gives threads up to eight heaps a core, and memory freed in one is of no use to the others: with 32 clients
// and full layers resident memory kept growing for half an hour (docs/adr/0019).
void limit_heaps();

} // namespace atlas
