# Gets llama.cpp (submodule, else PyPI, else -DLLAMA_CPP_DIR) and stages a patched copy in the build tree, again only
# when the pin or a patch changes. Sets ATLAS_LLAMA_CPP, the staged tree, ATLAS_TOMLPLUSPLUS_INCLUDE and
# ATLAS_LIBVALKEY.

function(atlas_stage)
    execute_process(
        COMMAND ${Python3_EXECUTABLE} ${CMAKE_SOURCE_DIR}/tools/stage ${ARGN} --cache ${ATLAS_SOURCE_CACHE}
        RESULT_VARIABLE result ERROR_VARIABLE reason)
    if(NOT result EQUAL 0)
        message(FATAL_ERROR "${reason}")
    endif()
endfunction()

set(ATLAS_LLAMA_CPP ${CMAKE_BINARY_DIR}/llama.cpp-source)
set(stage_options --dest ${ATLAS_LLAMA_CPP})
if(LLAMA_CPP_DIR)
    list(APPEND stage_options --source ${LLAMA_CPP_DIR})
endif()
if(ATLAS_STOCK)
    list(APPEND stage_options --no-patches)
endif()
atlas_stage(llama ${stage_options})

# configure anew, and so stage anew, when one of these changes
file(GLOB patches CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/patches/*)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${patches} ${CMAKE_SOURCE_DIR}/cmake/llama-cpp.pin)

if(LLAMA_ATLAS)
    set(ATLAS_TOMLPLUSPLUS_INCLUDE ${CMAKE_BINARY_DIR}/tomlplusplus)
    atlas_stage(sdist --pin ${CMAKE_SOURCE_DIR}/cmake/tomlplusplus.pin --dest ${ATLAS_TOMLPLUSPLUS_INCLUDE})
    set(ATLAS_LIBVALKEY ${CMAKE_BINARY_DIR}/libvalkey)
    atlas_stage(sdist --pin ${CMAKE_SOURCE_DIR}/cmake/libvalkey.pin --dest ${ATLAS_LIBVALKEY})
endif()

# upstream would ask git, which would answer for the repository of ATLAS
foreach(key commit build)
    file(STRINGS ${CMAKE_SOURCE_DIR}/cmake/llama-cpp.pin line REGEX "^${key} *=")
    string(REGEX REPLACE "^[^=]*= *" "" pin_${key} "${line}")
endforeach()
string(SUBSTRING "${pin_commit}" 0 9 pin_commit)
if(NOT DEFINED LLAMA_BUILD_COMMIT)
    set(LLAMA_BUILD_COMMIT ${pin_commit})
    set(LLAMA_BUILD_NUMBER ${pin_build})
endif()
