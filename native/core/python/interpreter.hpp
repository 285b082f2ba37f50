// The process's CPython, which all `python` objects share: it can be started once only, and never ends.
#pragma once

#include "atlas-abi.h"
#include "atlas-python-boot.h"
#include "atlas-python.hpp"

#include <mutex>
#include <optional>
#include <string>

namespace atlas {

// The functions of atlas-abi.h, as found in the module.
struct python_functions {
    decltype(&atlas_python_boot)         boot         = nullptr;
    decltype(&atlas_python_start)        start        = nullptr;
    decltype(&atlas_python_request)      request      = nullptr;
    decltype(&atlas_python_call)         call         = nullptr;
    decltype(&atlas_python_stream_next)  stream_next  = nullptr;
    decltype(&atlas_python_stream_close) stream_close = nullptr;
    decltype(&atlas_python_stop)         stop         = nullptr;
};

class interpreter {
  public:
    // Never destroyed: threads of Python live until the process ends.
    static interpreter & of_process();

    // Starts CPython, in the calling thread, which must be the main one. Where that was tried before, does nothing. Returns an
    // empty text, or one line that says why there is no CPython as the options want it: it did not start, or runs in another
    // environment.
    std::string start(const python_options & options);

    // After a start that succeeded. Any thread.
    const python_functions & functions() const { return found; }

  private:
    std::mutex                    mutex;
    std::optional<python_options> tried; // what it was started with, or tried to be
    std::string                   problem; // why it did not start
    python_functions              found;

    std::string load(const std::string & module);
};

} // namespace atlas
