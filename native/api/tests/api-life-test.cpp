// The life of a server: how it begins, what it refuses to begin with, and how it ends.
#include "api-test.hpp"

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <thread>

using namespace api;

CASE(a_server_begins_once) {
    const auto         model = load_model();
    atlas::AtlasServer on(config_of(dir));
    CHECK(code_of(on.handle_completion_request(says("x"))) == 503);
    CHECK(contains(error_of(on.handle_streaming_request(says("x"), [](const json &) { return true; })), "initialize"));
    CHECK(code_of(on.handle_status_request()) == 503);
    CHECK(on.pool_size() == 0 && on.pool_in_use() == 0);
    CHECK(!thrown_by<std::invalid_argument>([&] { on.resize_pool(1); }).empty());

    CHECK(contains(thrown_by<std::invalid_argument>([&] { on.initialize(nullptr); }), "model"));
    on.initialize(model.get());
    CHECK(contains(thrown_by<std::runtime_error>([&] { on.initialize(model.get()); }), "before"));
    CHECK(text_of(on.handle_completion_request(says("x"))) == "x");
}

CASE(a_server_that_never_began_ends) {
    atlas::AtlasServer on(config_of(dir));
    CHECK(code_of(on.handle_metrics_request()) == 503);
}

CASE(arguments_never_end_the_program) {
    const auto         model = load_model();
    atlas::AtlasServer on(config_of(dir, 0));

    const std::vector<std::vector<std::string>> wrong = {
        {"-np", "x"},
        {"-np"},
        {"--no-such"},
        {"-np", "99999999999999999999"},
        {"--help"},
        {"--version"},
        {"-h"},
        {"--list_devices"},
        {"--completion-bash"},
        {"--cache-list"},
        {"--no-jinja", "--chat-template", "{{ no such }}"},
        {"text"},
        {"--grammar-file", "/no/such"},
    };
    for (const auto & arguments : wrong) {
        const auto what = thrown_by<std::invalid_argument>([&] { on.initialize(model.get(), {arguments, ""}); });
        if (what.empty()) {
            std::fprintf(stderr, "%s is taken\n", arguments[0].c_str());
        }
        CHECK(!what.empty());
    }
    CHECK(contains(thrown_by<std::invalid_argument>([&] { on.initialize(model.get(), {{"-np", "x"}, ""}); }), "-np"));
    // what failed can be tried again
    on.initialize(model.get(), {{"--parallel", "3"}, ""});
    CHECK(on.pool_size() == 3);
    CHECK(text_of(on.handle_completion_request(with_session(says("x"), "me"))) == "x");
    CHECK(code_of(on.handle_memory_request("list")) == WITH_PYTHON);
}

CASE(a_wrong_argument_leaves_nothing_behind) {
    const auto         model = load_model();
    atlas::AtlasServer on(config_of(dir + "/memory"));
    CHECK(!thrown_by<std::invalid_argument>([&] { on.initialize(model.get(), {{"-np", "x"}, ""}); }).empty());
    // it is known before anything starts
    CHECK(!std::filesystem::exists(dir + "/memory"));
    CHECK(code_of(on.handle_status_request()) == 503 && on.pool_size() == 0);
    on.initialize(model.get());
    cases::wait_until([&] { return std::filesystem::exists(dir + "/memory"); });
}

// The budget of tier 1 in MiB, null where there is no limit.
static json ram_budget(atlas::AtlasServer & on) {
    cases::wait_until([&] { return on.handle_status_request()["data"]["memory"].is_object(); });
    const json budget = on.handle_status_request()["data"]["memory"]["ram"]["budget"];
    return budget.is_null() ? budget : json(budget.get<uint64_t>() >> 20);
}

CASE(cache_ram_is_the_budget_in_ram) {
    const auto model  = load_model();
    const auto budget = [&](const atlas::AtlasServerConfig & config, const std::vector<std::string> & arguments) {
        atlas::AtlasServer on(config);
        on.initialize(model.get(), {arguments, ""});
        CHECK(text_of(on.handle_completion_request(with_session(says("x"), "me"))) == "x");
        return ram_budget(on);
    };
    auto config = config_of(dir);
    CHECK(budget(config, {"--cache-ram", "7"}) == 7);
    CHECK(budget(config, {"-cram", "0"}) == 0);
    CHECK(budget(config, {"--cache-ram", "-1"}).is_null());
    CHECK(budget(config, {}) == 8192); // upstream's default
    config.l1_cache_size = 5 << 20;
    CHECK(budget(config, {"--cache-ram", "7"}) == 5);
}

CASE(an_error_names_the_setting) {
    const auto model         = load_model();
    auto       config        = config_of(dir);
    config.context_pool_size = 100000;
    atlas::AtlasServer on(config);
    CHECK(contains(thrown_by<std::invalid_argument>([&] { on.initialize(model.get()); }), "context_pool_size"));
    CHECK(code_of(on.handle_status_request()) == 503);
}

// As llama-server, which goes on without a disk.
CASE(a_memory_path_that_is_a_file_is_told) {
    std::ofstream(dir + "/file") << "x";
    for (const std::string & path : {dir + "/file", dir + "/file/below"}) {
        server on(config_of(path));
        CHECK(text_of(on->handle_completion_request(says("x"))) == "x");
        cases::wait_until([&] { return contains(on->handle_status_request().dump(), dir + "/file"); });
        CHECK(!error_of(on->handle_memory_request("save", {{"context_id", "a"}, {"state", json::object()}})).empty());
    }
}

CASE(a_server_without_atlas_answers_completions) {
    auto config    = config_of(dir);
    config.enabled = false;
    server on(config);
    CHECK(text_of(on->handle_completion_request(says("x"))) == "x");
    CHECK(code_of(on->handle_status_request()) == 503);
    CHECK(on->pool_size() == 0 && on->pool_in_use() == 0);
    auto stream = open_stream(*on, endless());
    on.atlas.reset();
    std::string piece;
    CHECK(!stream.next(piece));
}

CASE(a_stream_may_outlive_its_server) {
    server      on(config_of(dir));
    auto        read = open_stream(*on, endless()), unread = open_stream(*on, with_session(endless(), "me"));
    std::string piece;
    CHECK(read.next(piece));

    atlas::AtlasRequest request;
    request.method = "GET";
    request.path   = "/v1/atlas/metrics/stream";
    auto metrics   = on->handle(request);
    CHECK(metrics.status == WITH_PYTHON);
    CHECK(!HAS_PYTHON || (metrics.next && metrics.next(piece)));

    on.atlas.reset();
    on.model.reset();
    piece.clear();
    CHECK(!read.next(piece) && !unread.next(piece));
    CHECK(!HAS_PYTHON || !metrics.next(piece));
    CHECK(piece.empty());
}

CASE(any_thread_begins_and_ends_a_server) {
    std::unique_ptr<server> on;
    std::thread([&] { on = std::make_unique<server>(config_of(dir)); }).join();
    CHECK(text_of(on->atlas->handle_completion_request(with_session(says("x"), "me"))) == "x");
    std::thread([&] { on.reset(); }).join();
    server again(config_of(dir));
    CHECK(text_of(again->handle_completion_request(with_session(says("x"), "me"))) == "x");
}

static json long_chat(const std::string & last) {
    std::string text;
    for (int i = 0; i < 60; i++) {
        text += "word " + std::to_string(i) + " ";
    }
    json messages = {{{"role", "user"}, {"content", text}}, {{"role", "assistant"}, {"content", "Yes."}}};
    messages.push_back({{"role", "user"}, {"content", last}});
    return with_session({{"messages", messages}, {"temperature", 0}, {"max_tokens", 8}}, "anna");
}

static int reused(atlas::AtlasServer & on, const std::string & last) {
    cases::wait_until([&] { // for what is on the disk to be known
        const json memory = on.handle_status_request()["data"]["memory"];
        return memory["root"].is_string() && memory["disk"]["index_complete"] == true;
    });
    const json answer = on.handle_completion_request(long_chat(last));
    CHECK(answer.contains("timings"));
    return answer["timings"]["cache_n"];
}

CASE(a_session_goes_on_in_the_next_server) {
    for (const std::string & path : {std::string(), model_path()}) {
        const std::string memory = dir + (path.empty() ? "/by-weights" : "/by-file");
        {
            server on(config_of(memory), path);
            CHECK(reused(*on, "Go on.") == 0);
            CHECK(error_of(on->handle_memory_request("flush")).empty());
        }
        server on(config_of(memory), path);
        CHECK(reused(*on, "Go on, please.") > 0);
    }
}

// For the tests that have llama-server as the other side: tests/server/test_library.py.
CASE(says_how_much_it_reuses) {
    server on(config_of(dir), model_path());
    std::printf("%d\n", reused(*on, "Go on."));
    CHECK(error_of(on->handle_memory_request("flush")).empty());
}
