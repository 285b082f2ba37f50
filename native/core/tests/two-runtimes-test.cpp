// Two servers' runtimes in one process, each with a memory, metrics and an application in Python of its own.
// ATLAS_TEST_PYTHON_MODULE names the module of this build, VIRTUAL_ENV the environment.
#include "atlas-log.hpp"
#include "atlas-runtime.hpp"
#include "cases.hpp"

#include <nlohmann/json.hpp>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using namespace atlas;
using json   = nlohmann::json;
namespace fs = std::filesystem;

static const char PLUGIN[] = R"(
import logging
import threading
from pathlib import Path

from atlas_plugin import StreamResponse, hookimpl

own = {}


def ask_for_ever(host):
    while True:
        host.status()


@hookimpl
def startup(host):
    own["path"] = host.settings().text("memory_save_path")
    threading.Thread(target=ask_for_ever, args=[host], daemon=True).start()
    logging.getLogger("mine").info("up: %s", own["path"])


@hookimpl
def register_routes(routes):
    routes.get("/v1/atlas/x/mine")(lambda request: own)
    routes.get("/v1/atlas/x/log")(lambda request: logging.getLogger("mine").info("asked: %s", own["path"]))
    routes.get("/v1/atlas/x/pieces")(lambda request: StreamResponse(iter(["one", "two"])))


@hookimpl
def shutdown():
    Path(own["path"], "shutdown.ran").touch()
)";

static std::mutex               log_mutex;
static std::vector<std::string> logged;

static void keep_log(LogLevel, LogFormat, const std::string & text) {
    const std::lock_guard<std::mutex> held(log_mutex);
    logged.push_back(text);
}

static bool is_in_log(const std::string & part) {
    const std::lock_guard<std::mutex> held(log_mutex);
    for (const auto & text : logged) {
        if (text.find(part) != std::string::npos) {
            return true;
        }
    }
    return false;
}

using choices = std::map<std::string, std::string>;

// Never destroyed, as its threads in Python live on. place: its memory path.
static runtime & make(const std::string & place, const choices & more) {
    set_log_sink(keep_log);
    fs::create_directories(place);
    std::ofstream(place + "/mine.py") << PLUGIN;
    choices chosen = {{"memory_save_path", place},
                      {"plugins", place + "/mine.py"},
                      {"python_patience_ms", "600000"},
                      {"shutdown_timeout_s", "60"},
                      {"block_tokens", "16"}};
    chosen.insert(more.begin(), more.end());
    settings     all;
    const auto & table = settings::table();
    for (const auto & [name, value] : chosen) {
        size_t at = 0;
        while (table.at(at).name != name) {
            at++;
        }
        all.set(at, value, setting_origin::flag);
    }
    const char * module = std::getenv("ATLAS_TEST_PYTHON_MODULE");
    CHECK(module != nullptr);
    return *new runtime(all, "a test", {module, ""});
}

static runtime & started(const std::string & place, int n_slots, const choices & more = {}) {
    runtime & made = make(place, more);
    CHECK(made.start(true, 64 << 20, {}));
    made.set_model({fs::path(place).filename(), n_slots});
    made.root().set(std::string(64, 'a'), "");
    return made;
}

static http_response ask(runtime & of, const std::string & method, const std::string & path, const json & body = {}) {
    http_request request;
    request.method   = method;
    request.path     = "/v1/atlas/" + path;
    request.body     = body.is_null() ? "" : body.dump();
    request.is_admin = true;
    return of.handle(request);
}

static json answer(runtime & of, const std::string & method, const std::string & path, const json & body = {}) {
    const auto response = ask(of, method, path, body);
    if (response.status != 200) {
        std::fprintf(stderr, "%s: %d %s\n", path.c_str(), response.status, response.body.c_str());
    }
    CHECK(response.status == 200);
    return json::parse(response.body);
}

static json setting(runtime & of, const std::string & name) {
    const json all = answer(of, "GET", "config");
    for (const auto & entry : all.at("data").at("settings")) {
        if (entry.at("name") == name) {
            return entry.at("value");
        }
    }
    return {};
}

static void complete(runtime & of) {
    completion_head head;
    head.began         = request::clock::now();
    head.meter         = of.gate().meter("/v1/chat/completions", [] { return false; }, head.began);
    const auto request = of.gate().begin(std::move(head));
    of.let_in(*request);
    request->meter->complete();
}

// As its metrics tell.
static double n_completed(runtime & of) {
    const std::string text   = ask(of, "GET", "metrics/prometheus").body;
    double            total  = 0;
    const char        NAME[] = "\natlas_requests_total{";
    for (size_t at = text.find(NAME); at != std::string::npos; at = text.find(NAME, at + 1)) {
        total += std::strtod(text.c_str() + text.find("} ", at) + 2, nullptr);
    }
    return total;
}

static size_t n_slots(runtime & of) {
    return answer(of, "POST", "memory/list", json::object()).at("data").at("contexts").size();
}

CASE(runtimes_live_beside_each_other) {
    runtime & a = started(dir + "/a", 3, {{"metrics_update_interval_ms", "1111"}});
    runtime & b = started(dir + "/b", 5, {{"metrics_update_interval_ms", "2222"}});
    CHECK(is_in_log("mine: up: " + dir + "/a"));
    CHECK(is_in_log("mine: up: " + dir + "/b"));

    // settings, plugins, the model
    CHECK(setting(a, "metrics_update_interval_ms") == 1111);
    CHECK(setting(b, "metrics_update_interval_ms") == 2222);
    answer(a, "POST", "config", {{"settings", {{"metrics_update_interval_ms", 3333}}}});
    CHECK(a.config()->metrics_update_interval_ms == 3333);
    CHECK(b.config()->metrics_update_interval_ms == 2222);
    CHECK(answer(a, "GET", "x/mine").at("path") == dir + "/a");
    CHECK(answer(b, "GET", "x/mine").at("path") == dir + "/b");
    CHECK(answer(a, "GET", "status").at("data").at("context_pool_size") == 3);
    CHECK(answer(b, "GET", "status").at("data").at("context_pool_size") == 5);
    CHECK(answer(b, "GET", "status").at("status") == "healthy");

    // metrics
    for (int i = 0; i < 7; i++) {
        complete(a);
    }
    complete(b);
    CHECK(n_completed(a) == 7);
    CHECK(n_completed(b) == 1);

    // contexts, each in its own database
    answer(a, "POST", "memory/save", {{"context_id", "one"}, {"state", {{"of", "a"}}}});
    answer(a, "POST", "memory/save", {{"context_id", "two"}, {"state", {{"of", "a"}}}});
    answer(b, "POST", "memory/save", {{"context_id", "one"}, {"state", {{"of", "b"}}}});
    CHECK(n_slots(a) == 2);
    CHECK(n_slots(b) == 1);
    CHECK(answer(b, "POST", "memory/load", {{"context_id", "one"}}).at("data").at("state").at("of") == "b");
    CHECK(fs::exists(dir + "/a/contexts.sqlite3") && fs::exists(dir + "/b/contexts.sqlite3"));

    // memories
    memory_entry entry;
    entry.parent = std::string(64, 'a');
    entry.tokens = memory_tokens(16, 1);
    entry.data   = state_bytes(1000);
    a.memory()->put(std::move(entry));
    CHECK(answer(a, "GET", "status").at("data").at("memory").at("ram").at("entries") == 1);
    CHECK(answer(b, "GET", "status").at("data").at("memory").at("ram").at("entries") == 0);

    // one stops, with a stream that it has begun
    auto        of_a = ask(a, "GET", "x/pieces");
    auto        of_b = ask(b, "GET", "x/pieces");
    std::string piece;
    CHECK(of_a.next(piece) && piece == "one");
    CHECK(of_b.next(piece) && piece == "one");
    CHECK(a.stop());
    CHECK(fs::exists(dir + "/a/shutdown.ran") && !fs::exists(dir + "/b/shutdown.ran"));
    CHECK(ask(a, "GET", "x/mine").status == 503);
    CHECK(!of_a.next(piece));

    // and the other goes on
    CHECK(of_b.next(piece) && piece == "two");
    CHECK(answer(b, "GET", "status").at("status") == "healthy");
    CHECK(answer(b, "GET", "x/mine").at("path") == dir + "/b");
    answer(b, "POST", "memory/save", {{"context_id", "two"}, {"state", {{"of", "b"}}}});
    CHECK(n_slots(b) == 2);
    complete(b);
    CHECK(n_completed(b) == 2);
    CHECK(b.stop());
    CHECK(fs::exists(dir + "/b/shutdown.ran"));
    CHECK(ask(b, "GET", "x/mine").status == 503);
}

CASE(runtimes_stop_one_by_one_while_all_are_asked) {
    constexpr int            N_THREADS = 4;
    runtime &                a         = started(dir + "/a", 1);
    runtime &                b         = started(dir + "/b", 1);
    std::atomic<bool>        a_stopped{false}, is_over{false};
    std::atomic<int>         n_of_b{0}, n_after{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < N_THREADS; i++) {
        threads.emplace_back([&] {
            while (!is_over) {
                const int status = ask(a, "GET", "x/mine").status;
                CHECK(status == 200 || status == 503);
                complete(b);
                n_of_b++;
                n_after += a_stopped;
                CHECK(answer(b, "GET", "x/mine").at("path") == dir + "/b");
            }
        });
    }
    cases::wait_until([&] { return n_of_b > 20; });
    CHECK(a.stop());
    a_stopped = true;
    cases::wait_until([&] { return n_after > 20; });
    is_over = true;
    for (auto & thread : threads) {
        thread.join();
    }
    CHECK(n_completed(b) == n_of_b);
    CHECK(n_completed(a) == 0);
    runtime & c = started(dir + "/c", 1); // after one has gone
    CHECK(answer(c, "GET", "x/mine").at("path") == dir + "/c");
    CHECK(b.stop());
    CHECK(c.stop());
}

CASE(runtimes_share_one_interpreter) {
    runtime &         a           = started(dir + "/a", 1);
    const std::string environment = std::getenv("VIRTUAL_ENV");

    runtime & b = make(dir + "/b", {{"python_home", dir}});
    CHECK(b.start(true, 64 << 20, {}));
    const std::string why = "a process has one Python, and this one's was started in the environment " + environment;
    CHECK(is_in_log(why));
    CHECK(answer(b, "GET", "status").at("problems").dump().find(why) != std::string::npos);
    CHECK(ask(b, "GET", "x/mine").status == 503);

    CHECK(!make(dir + "/c", {{"python_home", dir}, {"require_python", "1"}}).start(true, 64 << 20, {}));
    CHECK(answer(a, "GET", "x/mine").at("path") == dir + "/a");
    CHECK(b.stop());
    CHECK(a.stop());
}

CASE(runtimes_of_a_build_without_python_say_so) {
    set_log_sink(keep_log);
    runtime & made = *new runtime(settings(), "a test", {});
    CHECK(made.start(true, 64 << 20, {}));
    const std::string why = "this build has none, it was configured with -DATLAS_PYTHON=OFF";
    CHECK(is_in_log("Python could not start: " + why));
    for (const int32_t is_admin : {0, 1}) {
        http_request request;
        request.method           = "GET";
        request.is_admin         = is_admin;
        request.path             = "/v1/atlas/status";
        const auto        status = made.handle(request);
        const json        shown  = json::parse(status.body);
        const std::string told   = "Python is not running: " + why;
        CHECK(status.status == 200);
        CHECK(shown.at("status") == "degraded");
        CHECK(shown.at("problems") == json::array({told}));
        request.path       = "/v1/atlas/plugins";
        const auto refused = made.handle(request);
        CHECK(refused.status == 503);
        CHECK(json::parse(refused.body).at("error").at("message") == told);
        request.path = "/v1/atlas/metrics/prometheus";
        CHECK(made.handle(request).status == 200);
    }
    CHECK(made.stop());
}

CASE(runtimes_that_stopped_leave_log_and_stacks_to_others) {
    runtime & a = started(dir + "/a", 1);
    runtime & b = started(dir + "/b", 1);
    CHECK(b.stop());
    ask(a, "GET", "x/log");
    CHECK(is_in_log("mine: asked: " + dir + "/a"));
    CHECK(std::freopen((dir + "/stacks").c_str(), "w", stderr) != nullptr);
    std::raise(SIGUSR1);
    cases::wait_until([&] {
        std::ifstream     file(dir + "/stacks");
        const std::string text(std::istreambuf_iterator<char>(file), {});
        // by Python, which names threads, and not by faulthandler, which takes over where nobody answers
        return text.find("(ask_for_ever) (0x") != std::string::npos;
    });
    CHECK(a.stop());
}

// Ends without destructors, as the server does: threads of plugins live on.
int main(int argc, char ** argv) {
    const int status = cases::run(argc, argv);
    std::fflush(nullptr);
    std::_Exit(status);
}
