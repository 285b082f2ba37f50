/* Starting CPython inside the server, and saying exactly why when it does not start.
 *
 * cffi alone would call Py_InitializeEx(0), which takes whatever python3 is first on PATH; here the environment is
 * given, and cffi finds the interpreter already running. cffi's generated code is included, not linked: its
 * cffi_start_python() is static. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "atlas-python-boot.h"

#include "atlas-python-embedding.c"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#ifdef Py_GIL_DISABLED
#define FREE_THREADED "t"
#else
#define FREE_THREADED ""
#endif
#define VERSION_NAME "python" Py_STRINGIFY(PY_MAJOR_VERSION) "." Py_STRINGIFY(PY_MINOR_VERSION) FREE_THREADED

static int32_t fail(char * reason, size_t reason_size, const char * what, const char * environment) {
    snprintf(reason, reason_size, "%s (environment %s, Python %s)", what, environment, PY_VERSION);
    return ATLAS_FAILED;
}

/* "ModuleNotFoundError: No module named 'msgspec'", and clears the error. */
static void describe_exception(char * text, size_t size) {
    PyObject * type;
    PyObject * value;
    PyObject * traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    PyObject *   message = value == NULL ? NULL : PyObject_Str(value);
    const char * utf8    = message == NULL ? NULL : PyUnicode_AsUTF8(message);
    snprintf(text, size, "%s: %s", type == NULL ? "unknown error" : ((PyTypeObject *) type)->tp_name,
             utf8 == NULL ? "" : utf8);
    PyErr_Clear();
    Py_XDECREF(message);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
}

static int exists(const char * environment, const char * name) {
    char      path[4096];
    const int length = snprintf(path, sizeof(path), "%s/%s", environment, name);
    return length > 0 && (size_t) length < sizeof(path) && access(path, F_OK) == 0;
}

static PyStatus initialize(const char * environment) {
    PyPreConfig preconfig;
    PyPreConfig_InitIsolatedConfig(&preconfig);
    preconfig.utf8_mode = 1;
    PyStatus status     = Py_PreInitialize(&preconfig);
    if (PyStatus_Exception(status)) {
        return status;
    }
    PyConfig config;
    PyConfig_InitIsolatedConfig(&config);
    config.install_signal_handlers = 0;

    /* the environment's own interpreter: from its place CPython finds pyvenv.cfg, the standard library and
     * site-packages, as if that program had been started */
    char program[4096];
    snprintf(program, sizeof(program), "%s/bin/python%s", environment, exists(environment, "bin/python") ? "" : "3");
    status = PyConfig_SetBytesString(&config, &config.program_name, program);
    if (!PyStatus_Exception(status)) {
        status = Py_InitializeFromConfig(&config);
    }
    PyConfig_Clear(&config);
    return status;
}

/* The module _signal takes SIGINT over when it is first imported, whatever the configuration says, and Ctrl-C would
 * become a KeyboardInterrupt of the plugin that is starting. Told through the module itself, as asyncio.run() installs
 * its own handler only where it finds Python's. */
static void give_back_interrupt(void) {
    PyRun_SimpleString("import signal as _signals\n"
                       "if _signals.getsignal(_signals.SIGINT) is _signals.default_int_handler:\n"
                       "    _signals.signal(_signals.SIGINT, _signals.SIG_DFL)\n"
                       "del _signals\n");
}

int32_t atlas_python_boot(const char * environment, char * reason, size_t reason_size) {
    if (!exists(environment, "bin/python") && !exists(environment, "bin/python3")) {
        return fail(reason, reason_size, "there is no bin/python in the Python environment", environment);
    }
    if (!exists(environment, "lib/" VERSION_NAME)) {
        return fail(reason, reason_size,
                    "the Python environment is of another version than this build: it has no lib/" VERSION_NAME,
                    environment);
    }
    const PyStatus status = initialize(environment);
    if (PyStatus_Exception(status)) {
        return fail(reason, reason_size, status.err_msg == NULL ? "CPython did not start" : status.err_msg,
                    environment);
    }
    give_back_interrupt();

    /* the second is what cffi's own start would miss, and report to standard error only */
    static const char * const MODULES[] = {"atlas_plugin", "_cffi_backend"};

    char problem[1024] = "";
    for (size_t i = 0; i < 2 && problem[0] == '\0'; i++) {
        PyObject * module = PyImport_ImportModule(MODULES[i]);
        if (module == NULL) {
            char exception[768];
            describe_exception(exception, sizeof(exception));
            snprintf(problem, sizeof(problem),
                     "cannot import %s: %s; install ATLAS there with bin/python -m pip install, from its source tree",
                     MODULES[i], exception);
        }
        Py_XDECREF(module);
    }
    PyEval_SaveThread(); /* cffi takes the GIL itself, as every later caller does */

    if (problem[0] != '\0') {
        return fail(reason, reason_size, problem, environment);
    }
    if (cffi_start_python() != 0) {
        return fail(reason, reason_size, "cffi did not start; its message above says why", environment);
    }
    return ATLAS_OK;
}
