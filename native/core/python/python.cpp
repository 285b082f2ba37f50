#include "atlas-python.hpp"

#include "atlas-error.hpp"
#include "atlas-log.hpp"
#include "atlas-python-boot.h"
#include "stack-signal.hpp"

#include <dlfcn.h>
#include <nlohmann/json.hpp>
#include <signal.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <thread>
#include <utility>
#include <vector>

namespace atlas {

python_environment find_python_environment(const std::string & python_home, const std::string & build_environment) {
    if (!python_home.empty()) {
        return {python_home, "--atlas-python-home or ATLAS_PYTHON_HOME"};
    }
    const char * virtual_env = std::getenv("VIRTUAL_ENV");
    if (virtual_env != nullptr && *virtual_env != '\0') {
        return {virtual_env, "VIRTUAL_ENV"};
    }
    return {build_environment, "the build"};
}

namespace {

atlas_slice slice(const std::string & text) { return {text.data(), text.size()}; }

std::string text(atlas_slice from) { return from.size == 0 ? std::string() : std::string(from.data, from.size); }

// On libstdc++ and Linux's libc++ the steady clock is CLOCK_MONOTONIC.
int64_t now_ns() { return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// What Python writes an answer to (convention 4).
struct sink {
    http_response response;
    uint64_t      stream     = 0;
    bool          has_stream = false;
    bool          is_broken  = false; // something that was written to it is missing
};

sink & as_sink(void * opaque) { return *static_cast<sink *>(opaque); }

// Whether host functions do anything that reaches beyond a sink (convention 7).
std::atomic<bool> is_host_open{true};

// What a host function answers when it failed.
template <typename R> R failure() { return {}; }
template <> void        failure<void>() {}
template <> int32_t     failure<int32_t>() { return ATLAS_FAILED; }

// F as atlas_host_api has it: what F throws ends here (convention 6).
template <auto F> struct contained;
template <typename R, typename... A, R (*F)(A...)> struct contained<F> {
    static R call(A... arguments) noexcept {
        try {
            return F(arguments...);
        } catch (...) {
            return failure<R>();
        }
    }
};

// The same of one that writes to a sink, which is broken then.
template <auto F> struct written;
template <typename... A, void (*F)(sink &, A...)> struct written<F> {
    static void call(void * opaque, A... arguments) noexcept {
        try {
            F(as_sink(opaque), arguments...);
        } catch (...) {
            as_sink(opaque).is_broken = true;
        }
    }
};

void host_log(int32_t level, atlas_slice message) {
    if (is_host_open) {
        log(static_cast<LogLevel>(level), text(message));
    }
}

// Never destroyed: threads of plugins may ask until the process has ended.
host_query & process_query() {
    static auto & query = *new host_query;
    return query;
}

int32_t query_host(int32_t what, atlas_slice argument, void * opaque) {
    if (!is_host_open) {
        return ATLAS_FAILED;
    }
    try {
        const auto answer = process_query()(what, {argument.data, argument.size});
        as_sink(opaque).response.body += answer.value_or("");
        return answer ? ATLAS_OK : ATLAS_FAILED;
    } catch (const std::exception & e) {
        log(LogLevel::ERROR, std::string("host query failed: ") + e.what());
        return ATLAS_FAILED;
    }
}

void sink_status(sink & to, int32_t status) { to.response.status = status; }

void sink_header(sink & to, atlas_slice name, atlas_slice value) {
    if (text(name) == "Content-Type") {
        to.response.content_type = text(value);
    } else {
        to.response.headers.emplace_back(text(name), text(value));
    }
}

void sink_body(sink & to, atlas_slice bytes) { to.response.body.append(bytes.data, bytes.size); }

void sink_stream(sink & to, uint64_t stream) {
    to.stream     = stream;
    to.has_stream = true;
}

void * sink_new() { return new sink(); }

atlas_slice sink_text(void * opaque) { return slice(as_sink(opaque).response.body); }

void sink_free(void * opaque) { delete static_cast<sink *>(opaque); }

const atlas_host_api HOST_API = {
    ATLAS_ABI_VERSION,          contained<host_log>::call,  contained<query_host>::call, written<sink_status>::call,
    written<sink_header>::call, written<sink_body>::call,   written<sink_stream>::call,  contained<sink_new>::call,
    contained<sink_text>::call, contained<sink_free>::call,
};

// Keeps the signal handlers of the host: importing asyncio, or a plugin, may replace them.
class signal_guard {
  public:
    signal_guard() {
        for (size_t i = 0; i < SIGNALS.size(); i++) {
            sigaction(SIGNALS[i], nullptr, &saved[i]);
        }
    }
    ~signal_guard() {
        for (size_t i = 0; i < SIGNALS.size(); i++) {
            sigaction(SIGNALS[i], &saved[i], nullptr);
        }
    }

  private:
    static constexpr std::array<int, 4> SIGNALS = {SIGINT, SIGTERM, SIGPIPE, SIGHUP};

    struct sigaction saved[4];
};

} // namespace

// The functions of atlas-abi.h, as found in the module.
struct python::functions {
    decltype(&atlas_python_boot)         boot         = nullptr;
    decltype(&atlas_python_start)        start        = nullptr;
    decltype(&atlas_python_request)      request      = nullptr;
    decltype(&atlas_python_call)         call         = nullptr;
    decltype(&atlas_python_stream_next)  stream_next  = nullptr;
    decltype(&atlas_python_stream_close) stream_close = nullptr;
    decltype(&atlas_python_stop)         stop         = nullptr;
};

struct python::state {
    functions call;

    std::mutex              mutex;
    std::condition_variable idle;
    bool                    open    = false; // calls may enter
    size_t                  running = 0;     // calls inside Python
};

// A call into Python, for as long as it lives. False: it may not enter, as there is no Python or it is stopping.
class python::visit {
  public:
    explicit visit(state & to) : to(to) {
        const std::lock_guard<std::mutex> lock(to.mutex);
        is_inside = to.open;
        to.running += is_inside ? 1 : 0;
    }
    visit(const visit &)             = delete;
    visit & operator=(const visit &) = delete;

    ~visit() {
        if (!is_inside) {
            return;
        }
        const std::lock_guard<std::mutex> lock(to.mutex);
        if (--to.running == 0) {
            to.idle.notify_all();
        }
    }

    explicit operator bool() const { return is_inside; }

  private:
    state & to;
    bool    is_inside;
};

// A streamed body. Gives the stream back when the last copy of its `next` goes, whether it ended or the client left.
class python::stream {
  public:
    stream(std::shared_ptr<state> owner, uint64_t id) : owner(std::move(owner)), id(id) {}
    stream(const stream &)             = delete;
    stream & operator=(const stream &) = delete;

    ~stream() {
        if (const visit call(*owner); call) {
            owner->call.stream_close(id);
        }
    }

    bool next(std::string & piece) {
        const visit call(*owner);
        if (!call) {
            return false;
        }
        sink          written;
        const int32_t result = owner->call.stream_next(id, now_ns(), &written);
        piece                = std::move(written.response.body);
        return result == ATLAS_OK && !written.is_broken;
    }

  private:
    const std::shared_ptr<state> owner;
    const uint64_t               id;
};

python::python(host_query query) : shared(std::make_shared<state>()) { process_query() = std::move(query); }

python::~python() = default;

bool python::running() const {
    const std::lock_guard<std::mutex> lock(shared->mutex);
    return shared->open;
}

std::string python::start(const python_options & options) {
    const signal_guard guard;

    // RTLD_GLOBAL: C extension modules expect libpython's symbols in the global scope
    void * module = dlopen(options.module.c_str(), RTLD_NOW | RTLD_GLOBAL);
    if (module == nullptr) {
        return std::string("cannot load the Python module of this build: ") + dlerror();
    }
    auto &     call = shared->call;
    const auto find = [module](auto & function, const char * name) {
        function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(module, name));
        return function != nullptr;
    };
    if (!find(call.boot, "atlas_python_boot") || !find(call.start, "atlas_python_start") ||
        !find(call.request, "atlas_python_request") || !find(call.call, "atlas_python_call") ||
        !find(call.stream_next, "atlas_python_stream_next") || !find(call.stream_close, "atlas_python_stream_close") ||
        !find(call.stop, "atlas_python_stop")) {
        return options.module + " is from another build of ATLAS: rebuild the target llama-server";
    }

    char reason[2048] = "";
    if (call.boot(options.environment.c_str(), reason, sizeof(reason)) != ATLAS_OK) {
        return reason;
    }
    sink answer;
    if (call.start(&HOST_API, &answer) != ATLAS_OK) {
        return answer.response.body.empty() ? "the package atlas_plugin failed to start; the log above says why"
                                            : answer.response.body;
    }
    show_stacks_on_signal([owner = shared] {
        return nlohmann::json::parse(perform(*owner, ATLAS_CALL_STACKS, "{}")).at("stacks").get<std::string>();
    });
    const std::lock_guard<std::mutex> lock(shared->mutex);
    shared->open = true;
    return "";
}

http_response python::handle(const http_request & request) {
    try {
        return handle(shared, request);
    } catch (const std::exception & e) {
        log(LogLevel::ERROR, std::string("a request could not be handed to Python: ") + e.what());
        return error_response(500, "Internal server error");
    }
}

http_response python::handle(const std::shared_ptr<state> & on, const http_request & request) {
    const visit call(*on);
    if (!call) {
        return error_response(503, "the server is shutting down");
    }
    std::vector<atlas_header> headers;
    headers.reserve(request.headers.size());
    for (const auto & [name, value] : request.headers) {
        headers.push_back({slice(name), slice(value)});
    }
    const atlas_http_request borrowed = {slice(request.method), slice(request.path), slice(request.query),
                                         slice(request.body),   headers.data(),      headers.size(),
                                         slice(request.tenant), request.is_admin};
    sink                     answer;
    const int32_t            status = on->call.request(&borrowed, now_ns(), &answer);
    if (answer.has_stream) {
        answer.response.next = [body = std::make_shared<stream>(on, answer.stream)](std::string & piece) {
            return body->next(piece);
        };
    }
    if (status != ATLAS_OK || answer.is_broken) {
        return error_response(500, "Internal server error");
    }
    return std::move(answer.response);
}

std::string python::perform(int32_t what, const std::string & argument) { return perform(*shared, what, argument); }

std::string python::perform(state & on, int32_t what, const std::string & argument) {
    const visit call(on);
    if (!call) {
        throw error(503, "the server is shutting down");
    }
    sink          answer;
    const int32_t status = on.call.call(what, slice(argument), now_ns(), &answer);

    auto & [code, type, body, headers, next] = answer.response;
    if (status != ATLAS_OK || answer.is_broken) {
        throw error(code < 400 ? 500 : code, body.empty() ? "Internal server error" : body);
    }
    return std::move(body);
}

bool python::stop(double timeout_s) {
    const bool has_ended = stop_calls(timeout_s);
    is_host_open         = false;
    return has_ended;
}

bool python::stop_calls(double timeout_s) {
    using clock = std::chrono::steady_clock;
    const auto deadline =
        clock::now() + std::chrono::duration_cast<clock::duration>(std::chrono::duration<double>(timeout_s));
    {
        std::unique_lock<std::mutex> lock(shared->mutex);
        if (!shared->open) {
            return true;
        }
        shared->open = false;
        if (!shared->idle.wait_until(lock, deadline, [this] { return shared->running == 0; })) {
            logf(LogLevel::WARN, "%zu Python call(s) did not end within %.1f s; going on without them", shared->running,
                 timeout_s);
        }
    }
    // on a thread of its own, as a shutdown hook may hang; shared ownership, as it may then outlive this object
    struct outcome {
        std::mutex              mutex;
        std::condition_variable ended;
        bool                    done = false;
    };
    auto result = std::make_shared<outcome>();
    std::thread([result, owner = shared] {
        owner->call.stop();
        const std::lock_guard<std::mutex> lock(result->mutex);
        result->done = true;
        result->ended.notify_all();
    }).detach();

    // a shutdown hook gets at least a second, even when running calls have used the time up
    const auto hooks_deadline = std::max(deadline, clock::now() + std::chrono::seconds(1));

    std::unique_lock<std::mutex> lock(result->mutex);
    const bool                   done = result->ended.wait_until(lock, hooks_deadline, [&] { return result->done; });
    if (!done) {
        logf(LogLevel::WARN, "the shutdown hooks did not end within %.1f s; going on without them", timeout_s);
    }
    const std::lock_guard<std::mutex> calls(shared->mutex);
    return done && shared->running == 0;
}

} // namespace atlas
