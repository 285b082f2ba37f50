#include "atlas-python.hpp"

#include "atlas-error.hpp"
#include "atlas-log.hpp"
#include "host-functions.hpp"
#include "interpreter.hpp"
#include "stack-signal.hpp"

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

// On libstdc++ and Linux's libc++ the steady clock is CLOCK_MONOTONIC.
int64_t now_ns() { return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count(); }

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

struct python::state {
    explicit state(host_query query) : host(std::move(query)) {}

    python_host              host;
    std::shared_ptr<state>   forever; // itself, once Python knows the host
    const python_functions * call        = nullptr;
    uint64_t                 application = 0; // its number in Python

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
            owner->call->stream_close(owner->application, id);
        }
    }

    bool next(std::string & piece) {
        const visit call(*owner);
        if (!call) {
            return false;
        }
        sink          written;
        const int32_t result = owner->call->stream_next(owner->application, id, now_ns(), &written);
        piece                = std::move(written.response.body);
        return result == ATLAS_OK && !written.is_broken;
    }

  private:
    const std::shared_ptr<state> owner;
    const uint64_t               id;
};

python::python(host_query query) : shared(std::make_shared<state>(std::move(query))) {}

python::~python() {
    shared->host.close();
    shared->host.wait_for_queries();
}

bool python::running() const {
    const std::lock_guard<std::mutex> lock(shared->mutex);
    return shared->open;
}

hook_calls & python::hooks() { return shared->host.hooks; }

hook_calls & python::tiers() { return shared->host.tiers; }

std::string python::start(const python_options & options) {
    const signal_guard guard;

    if (std::string problem = interpreter::of_process().start(options); !problem.empty()) {
        return problem;
    }
    shared->call    = &interpreter::of_process().functions();
    shared->forever = shared;
    sink answer;
    if (shared->call->start(&host_functions(), &shared->host, &shared->application, &answer) != ATLAS_OK) {
        return answer.response.body.empty() ? "the package atlas_plugin failed to start; the log above says why"
                                            : answer.response.body;
    }
    show_stacks_on_signal([on = shared] {
        return nlohmann::json::parse(perform(*on, ATLAS_CALL_STACKS, "{}")).at("stacks").get<std::string>();
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
    const int32_t            status = on->call->request(on->application, &borrowed, now_ns(), &answer);
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
    const int32_t status = on.call->call(on.application, what, slice(argument), now_ns(), &answer);

    auto & [code, type, body, headers, next] = answer.response;
    if (status != ATLAS_OK || answer.is_broken) {
        throw error(code < 400 ? 500 : code, body.empty() ? "Internal server error" : body);
    }
    return std::move(body);
}

bool python::stop(double timeout_s) {
    const bool has_ended = stop_calls(timeout_s);
    shared->host.close();
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
    shared->host.tiers.close(); // plugins are to be shut down
    shared->host.hooks.drain(std::chrono::duration<double>(deadline - clock::now()).count());
    // on a thread of its own, as a shutdown hook may hang; shared ownership, as it may then outlive this object
    struct outcome {
        std::mutex              mutex;
        std::condition_variable ended;
        bool                    done = false;
    };
    auto result = std::make_shared<outcome>();
    std::thread([result, owner = shared] {
        owner->call->stop(owner->application);
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
