/* The one function of the Python module that is not cffi's: it starts the interpreter. */
#ifndef ATLAS_PYTHON_BOOT_H
#define ATLAS_PYTHON_BOOT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Starts CPython in the environment (a directory that holds bin/python) and loads the package atlas_plugin into it.
 * Call it once, from the main thread, with no Python in the process yet; the GIL is free afterwards. Returns ATLAS_OK,
 * or ATLAS_FAILED with one line in reason (zero-terminated, cut to reason_size bytes). Installs no signal handler. */
int32_t atlas_python_boot(const char * environment, char * reason, size_t reason_size);

#ifdef __cplusplus
}
#endif

#endif /* ATLAS_PYTHON_BOOT_H */
