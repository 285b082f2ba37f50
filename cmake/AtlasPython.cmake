# The Python that runs the build's own tools and that the server embeds: the active environment's, unless
# -DPython3_EXECUTABLE says otherwise. Sets ATLAS_PYTHON_ENVIRONMENT, where the server looks for it at run time. With
# -DATLAS_PYTHON=OFF nothing is embedded, and any interpreter does.

set(Python3_FIND_VIRTUALENV FIRST)
if(LLAMA_ATLAS AND ATLAS_PYTHON)
    find_package(Python3 3.11 COMPONENTS Interpreter Development.Embed)
    if(NOT Python3_Interpreter_FOUND)
        message(FATAL_ERROR "no Python 3.11 or newer was found: apt-get install python3, or -DPython3_EXECUTABLE=…")
    endif()
    if(NOT Python3_Development.Embed_FOUND)
        message(FATAL_ERROR "the headers or the shared library of ${Python3_EXECUTABLE} (Python ${Python3_VERSION}) are "
            "missing: apt-get install python3-dev, or -DPython3_EXECUTABLE=… of a Python built with --enable-shared")
    endif()
    execute_process(
        COMMAND ${Python3_EXECUTABLE} -c "import cffi, sys; print(sys.prefix)"
        OUTPUT_VARIABLE ATLAS_PYTHON_ENVIRONMENT OUTPUT_STRIP_TRAILING_WHITESPACE
        ERROR_VARIABLE ATLAS_PYTHON_ERROR RESULT_VARIABLE ATLAS_PYTHON_RESULT)
    if(NOT ATLAS_PYTHON_RESULT EQUAL 0)
        message(FATAL_ERROR "cffi is missing in the Python environment of ${Python3_EXECUTABLE}: "
            "${Python3_EXECUTABLE} -m pip install -e ${CMAKE_SOURCE_DIR}\n${ATLAS_PYTHON_ERROR}")
    endif()
    message(STATUS "ATLAS: Python ${Python3_VERSION} in ${ATLAS_PYTHON_ENVIRONMENT}")
else()
    find_package(Python3 3.11 REQUIRED COMPONENTS Interpreter)
endif()
