// A server that sleeps for want of requests: it has no context then, and the model, which is not its own, stays.
#include "api-test.hpp"

#include <sys/resource.h>

#include <atomic>
#include <fstream>
#include <thread>

using namespace api;

static const std::vector<std::string> SLEEPY = {"--sleep-idle-seconds", "1"};

// As /props says, which never wakes it.
static bool is_asleep(atlas::AtlasServer & on) { return get(on, "/props")["is_sleeping"]; }

static void wait_until_asleep(atlas::AtlasServer & on) {
    cases::wait_until([&] { return is_asleep(on); });
}

static json story(const std::string & session) {
    std::string text = "Once upon a time";
    for (int i = 0; i < 60; i++) {
        text += ", and " + std::to_string(i);
    }
    return with_session({{"prompt", text}, {"temperature", 0}, {"max_tokens", 16}}, session);
}

CASE(who_asks_wakes_it) {
    const struct {
        std::string memory, model_path;
    } kinds[] = {{"", ""}, {dir + "/by-weights", ""}, {dir + "/by-file", model_path()}};
    for (const auto & [memory, path] : kinds) {
        server     on(config_of(memory), path, nullptr, 0, SLEEPY);
        const json before = on->handle_completion_request(story("anna"));
        CHECK(before["timings"]["cache_n"] == 0);
        wait_until_asleep(*on);
        const json after = on->handle_completion_request(story("anna"));
        CHECK(!is_asleep(*on));
        CHECK(text_of(after) == text_of(before));
        CHECK((after["timings"]["cache_n"] > 0) == !memory.empty()); // the context that had it is another now
    }
}

CASE(who_looks_lets_it_sleep) {
    server on(config_of(dir), "", nullptr, 0, SLEEPY);
    CHECK(text_of(on->handle_completion_request(says("x"))) == "x");
    const json slots = get(*on, "/slots");
    cases::wait_until([&] { return get(*on, "/slots") == slots && is_asleep(*on); });
    CHECK(get(*on, "/slots") == slots);
    CHECK(get(*on, "/health")["status"] == "ok");
    CHECK(error_of(on->handle_status_request()).empty());
    CHECK(code_of(on->handle_metrics_request()) == WITH_PYTHON);
    CHECK(code_of(on->handle_memory_request("list")) == WITH_PYTHON);
    CHECK(is_asleep(*on));
}

CASE(one_server_sleeps_while_the_other_works) {
    server             a(config_of(dir + "/a"), "", nullptr, 0, SLEEPY);
    atlas::AtlasServer b(config_of(dir + "/b"));
    b.initialize(a.model.get(), {{"-c", "4096", "-t", "1"}, ""});
    cases::wait_until([&] {
        CHECK(text_of(b.handle_completion_request(with_session(says("of b"), "me"))) == "of b");
        return is_asleep(*a);
    });
    CHECK(text_of(b.handle_completion_request(says("awake"))) == "awake");
    a.atlas.reset();
    CHECK(text_of(b.handle_completion_request(says("the model is there"))) == "the model is there");
}

CASE(a_sleeping_server_ends) {
    const auto model = load_model();
    for (const std::string & memory : {std::string(), dir}) {
        std::string text;
        for (int i = 0; i < 2; i++) { // what was kept before it slept is there after it ended
            atlas::AtlasServer on(config_of(memory));
            on.initialize(model.get(), {{"-c", "4096", "-t", "1", "--sleep-idle-seconds", "1"}, model_path()});
            cases::wait_until([&] {
                const json status = on.handle_status_request()["data"]["memory"];
                return memory.empty() || (status["root"].is_string() && status["disk"]["index_complete"] == true);
            });
            const json answer = on.handle_completion_request(story("anna"));
            CHECK(i == 0 || text_of(answer) == text);
            CHECK((answer["timings"]["cache_n"] > 0) == (i == 1 && !memory.empty()));
            text = text_of(answer);
            wait_until_asleep(on);
        }
    }
}

// It has no task with the loop while it waits, so the server falls asleep.
CASE(who_waits_for_a_context_wakes_it_late) {
    auto config            = config_of(dir, 1);
    config.pool_timeout_ms = 3600000;
    server           on(config, "", nullptr, 0, SLEEPY);
    auto             held = open_stream(*on, with_session(says("held"), "a")); // nobody reads it
    std::atomic<int> n_asked{0};
    std::thread      waiting([&] {
        atlas::AtlasRequest request;
        request.path    = "/v1/completions";
        request.body    = with_session(says("waited"), "b").dump();
        request.is_gone = [&] {
            n_asked++; // while it waits
            return false;
        };
        CHECK(text_of(json::parse(on->handle(request).body)) == "waited");
    });
    cases::wait_until([&] { return n_asked > 0 && is_asleep(*on); });
    held.next = nullptr;
    waiting.join();
    CHECK(!is_asleep(*on));
}

// A thread that was inside, but had asked for nothing yet when the loop ended; on_chunk stands for it.
// Python, which ends after the loop, tells when that has been.
CASE_OF_PYTHON(none_waits_for_a_server_that_ended_asleep) {
    server               on(config_of(dir), "", nullptr, 0, SLEEPY);
    std::atomic<bool>    is_sleeping{false};
    atlas::AtlasServer & inside = *on;
    std::thread          asking([&] {
        inside.handle_streaming_request(says("x"), [&](const json &) {
            wait_until_asleep(inside);
            is_sleeping = true;
            cases::wait_until(
                [&] { return code_of(inside.handle_memory_request("list")) == 503; }); // the loop has ended
            CHECK(code_of(inside.handle_completion_request(says("y"))) == 503);
            return false;
        });
    });
    cases::wait_until([&] { return is_sleeping.load(); });
    on.atlas.reset();
    asking.join();
}

// Bytes of address space that the process uses.
static size_t used_bytes() {
    size_t n_pages = 0;
    std::ifstream("/proc/self/statm") >> n_pages;
    return n_pages * 4096;
}

CASE(a_server_that_cannot_wake_says_so) {
    if (cases::IS_SANITIZED) {
        return; // it ends a process that has no more memory
    }
    const auto         model = load_model();
    atlas::AtlasServer on(config_of(dir));
    // a gigabyte of KV, which has to be had again
    const std::vector<std::string> arguments = {"-c", "524288", "-np", "1", "-t", "1", "--sleep-idle-seconds", "1"};
    on.initialize(model.get(), {arguments, ""});
    CHECK(text_of(on.handle_completion_request(says("x"))) == "x");
    wait_until_asleep(on);

    rlimit before{};
    getrlimit(RLIMIT_AS, &before);
    const rlimit little = {used_bytes() + (256 << 20), before.rlim_max};
    CHECK(setrlimit(RLIMIT_AS, &little) == 0);
    for (int i = 0; i < 2; i++) {
        CHECK(code_of(on.handle_completion_request(with_session(says("y"), "me"))) == 503);
        CHECK(error_of(on.handle_status_request()).empty());
    }
    CHECK(setrlimit(RLIMIT_AS, &before) == 0);
    server other(config_of("")); // the program goes on
    CHECK(text_of(other->handle_completion_request(says("z"))) == "z");
}

CASE(only_the_model_may_be_there_when_it_wakes) {
    const auto         model = load_model();
    atlas::AtlasServer on(config_of(dir));
    for (const char * option : {"--model-draft", "--mmproj"}) {
        auto arguments = SLEEPY;
        arguments.insert(arguments.end(), {option, model_path()});
        CHECK(contains(thrown_by<std::invalid_argument>([&] { on.initialize(model.get(), {arguments, ""}); }),
                       "--sleep-idle-seconds"));
    }
}

// They are answered or told that it ends, and none is left waiting for it to wake.
CASE(a_server_ends_while_threads_wake_it) {
    server               on(config_of(dir), "", nullptr, 0, SLEEPY);
    atlas::AtlasServer & inside = *on; // on.atlas is null from its end on
    wait_until_asleep(inside);
    std::atomic<int> n_inside{0}, n_wrong{0};
    std::thread      all([&] {
        in_threads(16, [&](int i) {
            atlas::AtlasRequest request;
            request.path = i % 2 ? "/tokenize" : "/v1/completions";
            request.body = i % 2 ? R"({"content": "x"})" : says("x").dump();
            n_inside++;
            const int status = inside.handle(request).status;
            n_wrong += status != 200 && status != 503;
        });
    });
    cases::wait_until([&] { return n_inside == 16; });
    on.atlas.reset();
    all.join();
    CHECK(n_wrong == 0);
}
