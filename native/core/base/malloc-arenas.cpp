#include "atlas-malloc-arenas.hpp"

#include <cstdlib>
#include <string_view>

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace atlas {

void limit_malloc_arenas() {
#ifdef __GLIBC__
    constexpr int N_ARENAS  = 2; // mostly one for the loop and one for the HTTP threads
    const char *  tunables  = std::getenv("GLIBC_TUNABLES");
    const bool    is_chosen = std::getenv("MALLOC_ARENA_MAX") ||
                              (tunables && std::string_view(tunables).find("arena_max") != std::string_view::npos);
    if (!is_chosen) {
        mallopt(M_ARENA_MAX, N_ARENAS);
    }
#endif
}

} // namespace atlas
