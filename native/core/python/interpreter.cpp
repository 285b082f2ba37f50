#include "interpreter.hpp"

#include <dlfcn.h>

#include <type_traits>

namespace atlas {

interpreter & interpreter::of_process() {
    static interpreter & only = *new interpreter;
    return only;
}

std::string interpreter::start(const python_options & options) {
    const std::lock_guard<std::mutex> held(mutex);
    if (tried && (tried->module != options.module || tried->environment != options.environment)) {
        return "a process has one Python, and this one's was started in the environment " + tried->environment +
               " by the module " + tried->module;
    }
    if (!tried) {
        problem = load(options.module);
        if (!problem.empty()) {
            return problem; // and nothing has happened yet
        }
        tried             = options;
        char reason[2048] = "";
        if (found.boot(options.environment.c_str(), reason, sizeof(reason)) != ATLAS_OK) {
            problem = reason;
        }
    }
    return problem;
}

std::string interpreter::load(const std::string & module) {
    // RTLD_GLOBAL: C extension modules expect libpython's symbols in the global scope
    void * const opened = dlopen(module.c_str(), RTLD_NOW | RTLD_GLOBAL);
    if (opened == nullptr) {
        return std::string("cannot load the Python module of this build: ") + dlerror();
    }
    const auto find = [opened](auto & function, const char * name) {
        function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(opened, name));
        return function != nullptr;
    };
    if (!find(found.boot, "atlas_python_boot") || !find(found.start, "atlas_python_start") ||
        !find(found.request, "atlas_python_request") || !find(found.call, "atlas_python_call") ||
        !find(found.stream_next, "atlas_python_stream_next") ||
        !find(found.stream_close, "atlas_python_stream_close") || !find(found.stop, "atlas_python_stop")) {
        return module + " is from another build of ATLAS: rebuild the target llama-server";
    }
    return "";
}

} // namespace atlas
