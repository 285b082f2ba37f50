#include "host-functions.hpp"

#include "atlas-log.hpp"

#include <atomic>
#include <exception>
#include <string>
#include <utility>

namespace atlas {

namespace {

atlas_slice slice(const std::string & text) { return {text.data(), text.size()}; }

std::string text(atlas_slice from) { return from.size == 0 ? std::string() : std::string(from.data, from.size); }

sink & as_sink(void * opaque) { return *static_cast<sink *>(opaque); }

// How many hosts of the process are open. The log is for as long as one is (convention 7).
std::atomic<int> n_open_hosts{0};

// What a host function answers when it failed.
template <typename R> R failure() { return {}; }
template <> void        failure<void>() {}
template <> int32_t     failure<int32_t>() { return ATLAS_FAILED; }
template <> int64_t     failure<int64_t>() { return -1; }

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
    if (n_open_hosts > 0) {
        log(static_cast<LogLevel>(level), text(message));
    }
}

int32_t query_host(void * host, int32_t what, atlas_slice argument, void * opaque) {
    try {
        const auto answer = static_cast<python_host *>(host)->ask(what, {argument.data, argument.size});
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

python_host & as_host(void * opaque) { return *static_cast<python_host *>(opaque); }

hook_calls & queue_of(void * host, int32_t queue) {
    return queue == ATLAS_QUEUE_TIERS ? as_host(host).tiers : as_host(host).hooks;
}

int32_t hook_worker_wanted(void * host, int32_t queue, int32_t has_failed) {
    return queue_of(host, queue).worker_wanted(has_failed != 0) ? ATLAS_OK : ATLAS_STREAM_END;
}

int32_t hook_take(void * host, int32_t queue, atlas_hook_work * to) {
    hook_work work;
    if (!queue_of(host, queue).take(to->number, work)) {
        return ATLAS_STREAM_END;
    }
    to->number  = work.number;
    to->table   = work.table;
    to->request = work.request;
    to->hook    = static_cast<int32_t>(work.what);
    to->head    = {work.head.data(), work.head.size()};
    to->body    = {work.body.data(), work.body.size()};
    to->payload = work.payload;
    return ATLAS_OK;
}

int64_t next_implementation(void * host, int32_t queue, uint64_t number, int32_t step, void * opaque) {
    http_response with;
    auto          how = static_cast<hook_step>(step);
    if (opaque != nullptr) {
        how  = as_sink(opaque).is_broken ? hook_step::fail : how;
        with = std::move(as_sink(opaque).response);
    }
    const auto next = queue_of(host, queue).step(number, how, std::move(with));
    return next ? static_cast<int64_t>(*next) : -1;
}

int32_t hook_read(void * host, int32_t queue, uint64_t number, void * to, uint64_t bytes) {
    return queue_of(host, queue).read(number, static_cast<char *>(to), bytes) ? ATLAS_OK : ATLAS_FAILED;
}

constexpr atlas_host_api FUNCTIONS = {
    ATLAS_ABI_VERSION,
    contained<host_log>::call,
    contained<query_host>::call,
    written<sink_status>::call,
    written<sink_header>::call,
    written<sink_body>::call,
    written<sink_stream>::call,
    contained<sink_new>::call,
    contained<sink_text>::call,
    contained<sink_free>::call,
    contained<hook_worker_wanted>::call,
    contained<hook_take>::call,
    contained<next_implementation>::call,
    contained<hook_read>::call,
};

} // namespace

const atlas_host_api & host_functions() { return FUNCTIONS; }

python_host::python_host(host_query query) : query(std::move(query)) { n_open_hosts++; }

std::optional<std::string> python_host::ask(int32_t what, std::string_view argument) {
    struct visit {
        python_host & of;
        explicit visit(python_host & of) : of(of) {}
        ~visit() {
            const std::lock_guard<std::mutex> held(of.mutex);
            if (--of.running == 0) {
                of.idle.notify_all();
            }
        }
    };
    {
        const std::lock_guard<std::mutex> held(mutex);
        if (!is_open) {
            return std::nullopt;
        }
        running++;
    }
    const visit inside(*this);
    return query(what, argument);
}

void python_host::close() {
    const std::lock_guard<std::mutex> held(mutex);
    n_open_hosts -= is_open ? 1 : 0;
    is_open = false;
    hooks.close();
    tiers.close();
}

void python_host::wait_for_queries() {
    std::unique_lock<std::mutex> held(mutex);
    idle.wait(held, [this] { return running == 0; });
}

} // namespace atlas
