# Under -march=native, gcc compiles AMX in where the CPU claims it. On some virtual machines the first ldtilecfg then
# kills the server with SIGSEGV as soon as a quantised model computes. A probe runs that instruction here; where it
# fails, AMX is compiled out of the CPU backend.

set(amx_probe_source [==[
#if defined(__AMX_TILE__) && defined(__linux__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(void) {
    /* ARCH_REQ_XCOMP_PERM for XTILEDATA: as ggml asks the kernel before it uses tiles */
    if (syscall(SYS_arch_prctl, 0x1023, 18) != 0) {
        return 1;
    }
    unsigned char config[64] = {1};
    config[16] = 64; /* bytes of a row of tile 0 */
    config[48] = 16; /* rows of tile 0 */
    _tile_loadconfig(config);
    _tile_zero(0);
    _tile_release();
    return 0;
}
#else
int main(void) { return 0; }
#endif
]==])

function(atlas_disable_broken_amx)
    if(NOT TARGET ggml-cpu OR CMAKE_CROSSCOMPILING OR NOT CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64"
            OR NOT CMAKE_C_COMPILER_ID MATCHES "GNU|Clang")
        return()
    endif()
    if(NOT DEFINED ATLAS_AMX_RUNS)
        set(probe ${CMAKE_BINARY_DIR}/CMakeFiles/atlas-amx-probe.c)
        file(WRITE ${probe} "${amx_probe_source}")
        get_target_property(options ggml-cpu COMPILE_OPTIONS)
        string(FIND "${options}" "-march=native" native)
        set(CMAKE_REQUIRED_QUIET ON)
        if(NOT native EQUAL -1)
            set(definitions -march=native)
        endif()
        try_run(run compiled ${CMAKE_BINARY_DIR}/CMakeFiles/atlas-amx ${probe} COMPILE_DEFINITIONS ${definitions})
        if(compiled AND run EQUAL 0)
            set(ATLAS_AMX_RUNS TRUE CACHE INTERNAL "")
        else()
            set(ATLAS_AMX_RUNS FALSE CACHE INTERNAL "")
        endif()
    endif()
    if(NOT ATLAS_AMX_RUNS)
        message(STATUS "ATLAS: AMX is compiled in but does not run on this machine; leaving it out")
        target_compile_options(ggml-cpu PRIVATE -mno-amx-tile -mno-amx-int8 -mno-amx-bf16)
    endif()
endfunction()
