// The embedded Python: starting it, calling it, stopping it. The only user of atlas-abi.h on the C++ side.
#pragma once

#include "atlas-abi.h"
#include "atlas-hook-calls.hpp"
#include "atlas-http.hpp"

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

namespace atlas {

// Where the interpreter is and runs.
struct python_options {
    std::string module;      // path of the libatlas-python module; empty: this build has none
    std::string environment; // directory that holds bin/python; found by find_python_environment
};

// The environment to run in and where that was decided ("--atlas-python-home", "VIRTUAL_ENV" or "the build").
struct python_environment {
    std::string path;
    std::string decided_by;
};

python_environment find_python_environment(const std::string & python_home, const std::string & build_environment);

// Answers what Python asks through atlas_host_api.query; nothing when it does not know, or the argument is bad.
using host_query = std::function<std::optional<std::string>(int32_t what, std::string_view argument)>;

// An application in Python, with plugins, streams and host functions of its own. Several may live in a process: they share
// its one interpreter, which the first of them starts, and so the modules that Python imports by name. Calls may come from
// any thread, several at once; a call after stop began is answered with 503, and none reaches Python after stop returned.
// What `query` uses must outlive the process's Python threads, which nobody ends: it may run in one when stop returns.
class python {
  public:
    explicit python(host_query query);
    ~python();

    // Starts the interpreter, where it does not run yet, and the plugins, in the calling thread, which must be the main one.
    // To be called once. Leaves the process's signal handlers as they were, but for SIGUSR1, which shows the stacks of
    // Python. Returns an empty text, or one line that says why there is no Python: all that run in a process must be given
    // the same options.
    std::string start(const python_options & options);

    bool running() const;

    // Lets Python answer a request. Never throws.
    http_response handle(const http_request & request);

    // Lets Python do one of ATLAS_CALL_…; argument and answer are JSON. Throws atlas::error.
    std::string perform(int32_t what, const std::string & argument);

    // The hooks that this application's plugins have on the path of requests. Live as long as the process, once Python started.
    hook_calls & hooks();

    // The calls of tiers that they bring, likewise.
    hook_calls & tiers();

    // Refuses new calls, waits for running ones, then runs the shutdown hooks; both within timeout_s seconds in all. Then
    // closes this host's query, whether Python runs or not: threads of plugins live on. Returns whether all calls came to
    // an end.
    bool stop(double timeout_s);

  private:
    struct state; // shared with streams, which may outlive a request
    class visit;
    class stream;

    std::shared_ptr<state> shared;

    static http_response handle(const std::shared_ptr<state> & on, const http_request & request);
    static std::string   perform(state & on, int32_t what, const std::string & argument);

    bool stop_calls(double timeout_s);
};

} // namespace atlas
