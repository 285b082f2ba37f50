// The arenas of glibc's malloc. The main thread calls this once, before there are others.
#pragma once

namespace atlas {

// Limits malloc to two arenas, unless the environment chooses (MALLOC_ARENA_MAX, GLIBC_TUNABLES). It has to be called
// early, as arenas that exist stay. Without glibc nothing happens.
//
// glibc gives threads up to eight arenas a core, and memory freed in one is of no use to the others: with 32 clients
// and full tiers, resident memory kept growing for half an hour (docs/adr/0019).
void limit_malloc_arenas();

} // namespace atlas
