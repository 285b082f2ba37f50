# The component "atlas": the library, what it needs of llama.cpp, headers, and the packages of CMake and pkg-config.
#   cmake --build build --target atlas-api && cmake --install build --component atlas --prefix DIR
# An install without a component, which is upstream's, has none of it.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(component COMPONENT atlas EXCLUDE_FROM_ALL)

if(NOT BUILD_SHARED_LIBS)
    # libatlas would have a llama.cpp in it and the program another, with other devices and another log
    install(CODE "message(FATAL_ERROR \"the component atlas needs -DBUILD_SHARED_LIBS=ON\")" ${component})
    return()
endif()

# A directory of their own, so that a llama.h of the system's stays what it is, and so that these are found first.
set(headers ${CMAKE_INSTALL_INCLUDEDIR}/atlas)
set(include ${ATLAS_NATIVE_DIR}/include)
install(FILES
    ${include}/atlas-config.hpp
    ${include}/atlas-endpoints.hpp
    ${include}/atlas-integration.hpp
    ${include}/atlas-log.hpp
    ${include}/atlas-memory-policy.hpp
    ${include}/atlas-routes.def
    ${include}/atlas-server.hpp
    ${include}/atlas-settings.def
    DESTINATION ${headers} ${component})
# Always llama.cpp's own: the functions' names have the version of nlohmann/json in them, so only this one fits.
install(FILES ${ATLAS_LLAMA_CPP}/vendor/nlohmann/json.hpp DESTINATION ${headers}/nlohmann ${component})

# libvalkey is compiled in, and its licence wants to be beside it.
install(FILES ${ATLAS_LIBVALKEY}/COPYING DESTINATION ${CMAKE_INSTALL_DOCDIR} RENAME libvalkey.COPYING ${component})

# All in one directory, where each finds the others. The path to look in is a target's, so what upstream's own install puts
# looks beside itself, too.
set(libraries atlas-api llama-common mtmd llama ggml ggml-base ${GGML_AVAILABLE_BACKENDS})
if(ATLAS_PYTHON)
    list(APPEND libraries atlas-python)
    set_target_properties(atlas-python PROPERTIES INSTALL_RPATH_USE_LINK_PATH ON) # libpython may be in no usual place
endif()
foreach(target ${libraries})
    set_property(TARGET ${target} APPEND PROPERTY INSTALL_RPATH $ORIGIN)
endforeach()
# Upstream has used these already: its paths are relative to where it did, and libmtmd is here for libatlas alone.
get_target_property(ggml_headers ggml PUBLIC_HEADER)
list(TRANSFORM ggml_headers PREPEND ${ATLAS_LLAMA_CPP}/ggml/)
set_target_properties(ggml PROPERTIES PUBLIC_HEADER "${ggml_headers}")
set_target_properties(mtmd PROPERTIES PUBLIC_HEADER "" PRIVATE_HEADER "")
install(TARGETS ${libraries}
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ${component}
    PUBLIC_HEADER DESTINATION ${headers} ${component})

get_target_property(ATLAS_VERSION atlas-api VERSION)
set(package ${CMAKE_INSTALL_LIBDIR}/cmake/atlas)
configure_package_config_file(${CMAKE_SOURCE_DIR}/cmake/atlas-config.cmake.in ${CMAKE_BINARY_DIR}/package/atlas-config.cmake
    INSTALL_DESTINATION ${package}
    PATH_VARS headers CMAKE_INSTALL_LIBDIR)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/package/atlas-config-version.cmake
    VERSION ${ATLAS_VERSION} COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/package/atlas-config.cmake ${CMAKE_BINARY_DIR}/package/atlas-config-version.cmake
    DESTINATION ${package} ${component})

# Relative to the file, so that the tree may be moved, and so that --prefix needs no configuring.
file(RELATIVE_PATH prefix /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
configure_file(${CMAKE_SOURCE_DIR}/cmake/atlas.pc.in ${CMAKE_BINARY_DIR}/package/atlas.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/package/atlas.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig ${component})
