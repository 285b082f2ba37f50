// A memory policy of the program's, in servers.
#include "api-test.hpp"

#include <atomic>
#include <future>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>

using namespace api;

using touches_of   = const std::vector<atlas::MemoryTouch> &;
using evictions_of = const std::vector<atlas::MemoryEviction> &;

// Keeps the server's own order, and what it was told.
struct listener : atlas::AtlasMemoryPolicy {
    std::atomic<int>          n_calls{0};
    std::atomic<const char *> complaint{nullptr}; // that it throws
    std::mutex                mutex; // guards all below
    std::set<int64_t>         times; // of touches, which the memory's clock counts from 1
    std::set<std::thread::id> threads;

    std::vector<int64_t> evict_order(int, touches_of touches, evictions_of) override {
        n_calls++;
        if (const char * text = complaint) {
            throw std::runtime_error(text);
        }
        const std::lock_guard<std::mutex> held(mutex);
        threads.insert(std::this_thread::get_id());
        for (const auto & touch : touches) {
            times.insert(touch.now);
        }
        return {};
    }

    // How many touches it was told of, all that there were.
    size_t n_touches() {
        const std::lock_guard<std::mutex> held(mutex);
        CHECK(times.empty() || (*times.begin() == 1 && *times.rbegin() == (int64_t) times.size()));
        return times.size();
    }

    // The one that called.
    std::thread::id thread() {
        const std::lock_guard<std::mutex> held(mutex);
        CHECK(threads.size() == 1);
        return *threads.begin();
    }
};

static json long_prompt(int number) {
    json tokens;
    for (int i = 0; i < 200; i++) {
        tokens.push_back(5 + (number * 41 + i) % 500);
    }
    return {{"prompt", tokens}, {"max_tokens", 1}};
}

static void ask(atlas::AtlasServer & on, int number) {
    CHECK(error_of(on.handle_completion_request(long_prompt(number))).empty());
}

static json policy_of(atlas::AtlasServer & on) { return on.handle_status_request()["data"]["memory_policy"]; }

static std::string stacks_of(atlas::AtlasServer & on) {
    atlas::AtlasRequest request;
    request.method = "GET";
    request.path   = "/v1/atlas/debug/stacks";
    return on.handle(request).body;
}

CASE(the_programs_policy_alone_is_told) {
    const auto told = std::make_shared<listener>();
    server     on(config_of(dir), "", told);
    for (int i = 0; i < 4; i++) {
        const size_t before = told->n_touches();
        ask(*on, i);
        cases::wait_until([&] { return told->n_touches() >= before + 200 / 16; });
    }
    const json status = policy_of(*on);
    CHECK(status["decided_by"] == "program" && status["layers"] == json({1, 2}));
    CHECK(status["failures"] == 0 && status["problem"].is_null() && status["events"] >= 4 * (200 / 16));
    CHECK(told->thread() != std::this_thread::get_id());
}

CASE_OF_PYTHON(python_takes_no_events_where_the_program_does) {
    server with(config_of(dir + "/a"), "", std::make_shared<listener>()), without(config_of(dir + "/b"));
    CHECK(policy_of(*with)["decided_by"] == "program" && policy_of(*without)["decided_by"] == "plugins");
    // one thread of Python's in this process, for the other
    const std::string stacks = stacks_of(*with);
    const size_t      first  = stacks.find("atlas-eviction");
    CHECK(first != std::string::npos && stacks.find("atlas-eviction", first + 1) == std::string::npos);
}

CASE(a_policy_that_throws_is_told_of) {
    const auto told = std::make_shared<listener>();
    server     on(config_of(dir), "", told);
    told->complaint = "it is tired";
    ask(*on, 1);
    cases::wait_until([&] { return policy_of(*on)["failures"] > 0; });
    const json status = on->handle_status_request();
    CHECK(status["status"] == "degraded");
    CHECK(status["data"]["memory_policy"]["problem"] == "it is tired");
    CHECK(contains(status["problems"].dump(), "the program's memory policy fails: it is tired"));
    ask(*on, 1);
    told->complaint = nullptr;
    ask(*on, 2);
    cases::wait_until(
        [&] { return !contains(on->handle_status_request()["problems"].dump(), "the program's memory policy"); });
    CHECK(policy_of(*on)["problem"].is_null() && policy_of(*on)["failures"] > 0);
}

CASE(requests_do_not_wait_for_a_slow_policy_but_the_end_does) {
    struct slow : atlas::AtlasMemoryPolicy {
        std::shared_future<void> may_go_on;
        std::atomic<bool> &      is_inside;
        slow(std::shared_future<void> may_go_on, std::atomic<bool> & is_inside)
            : may_go_on(std::move(may_go_on)), is_inside(is_inside) {}
        ~slow() override { CHECK(!is_inside); }

        std::vector<int64_t> evict_order(int, touches_of touches, evictions_of) override {
            is_inside = true;
            may_go_on.wait();
            is_inside = false;
            return std::vector<int64_t>(touches.size());
        }
    };
    std::promise<void>        may_go_on;
    std::atomic<bool>         is_inside{false};
    auto                      policy  = std::make_shared<slow>(may_go_on.get_future().share(), is_inside);
    const std::weak_ptr<slow> watched = policy;
    server                    on(config_of(dir), "", std::move(policy));
    ask(*on, 0);
    cases::wait_until([&] { return is_inside.load(); });
    for (int i = 1; i < 10; i++) {
        ask(*on, i);
    }
    CHECK(policy_of(*on)["batches"] == 0 && is_inside);
    CHECK(error_of(on->handle_memory_request("flush")).empty());
    std::atomic<bool> is_let_on{false};
    std::thread       ending([&] {
        on.atlas.reset();
        CHECK(is_let_on);
    });
    CHECK(!watched.expired());
    is_let_on = true;
    may_go_on.set_value();
    ending.join();
    CHECK(watched.expired());
}

CASE(two_servers_ask_a_policy_each) {
    const auto a_told = std::make_shared<listener>(), b_told = std::make_shared<listener>();
    server     a(config_of(dir + "/a"), "", a_told), b(config_of(dir + "/b"), "", b_told);
    in_threads(2, [&](int i) { // of a there are more
        for (int number = 0; number < (i == 0 ? 6 : 2); number++) {
            ask(i == 0 ? *a : *b, number);
        }
    });
    const size_t n_each = 200 / 16;
    cases::wait_until([&] { return a_told->n_touches() >= 6 * n_each && b_told->n_touches() >= 2 * n_each; });
    CHECK(b_told->n_touches() < 6 * n_each);
    a.atlas.reset();
    CHECK(a_told.use_count() == 1);
    const int before = a_told->n_calls;
    ask(*b, 7);
    cases::wait_until([&] { return b_told->n_touches() >= 3 * n_each; });
    CHECK(a_told->n_calls == before);
    CHECK(a_told->thread() != b_told->thread());
}

CASE(a_policy_is_let_go_where_no_server_begins) {
    const auto         model  = load_model();
    const auto         policy = std::make_shared<listener>();
    atlas::AtlasServer on(config_of(dir));
    CHECK(!thrown_by<std::invalid_argument>([&] { on.initialize(model.get(), {{"--no-such"}, "", policy}); }).empty());
    CHECK(policy.use_count() == 1);
    const std::vector<std::string> unusable = {"--lora", "/no/such"}; // known once the memory is open
    CHECK(!thrown_by<std::exception>([&] { on.initialize(model.get(), {unusable, "", policy}); }).empty());
    CHECK(policy.use_count() == 1 && policy->n_calls == 0);

    on.initialize(model.get(), {{"-c", "1024"}, "", policy});
    ask(on, 1);
    cases::wait_until([&] { return policy->n_calls > 0; });
}

CASE(without_a_memory_no_policy_is_asked) {
    const auto policy = std::make_shared<listener>();
    for (const bool is_on : {true, false}) {
        auto config    = config_of("");
        config.enabled = is_on;
        server on(config, "", policy);
        ask(*on, 1);
        CHECK(!on->handle_status_request().value("data", json::object()).contains("memory_policy"));
    }
    CHECK(policy.use_count() == 1 && policy->n_calls == 0);
}
