// One server and what is asked of it, right and wrong.
#include "api-test.hpp"

#include <atomic>
#include <iostream>
#include <stdexcept>

using namespace api;

static json chat(const std::string & text) {
    return {{"messages", {{{"role", "user"}, {"content", text}}}}, {"temperature", 0}, {"max_tokens", 16}};
}

CASE(answers_a_chat_and_a_completion) {
    server on(config_of(dir));
    CHECK(on->pool_size() == 4);
    CHECK(text_of(on->handle_completion_request(says("one two"))) == "one two");
    const json answer = on->handle_completion_request(with_session(chat("Hello!"), "me"));
    CHECK(answer["object"] == "chat.completion");
    CHECK(!text_of(answer).empty());
    CHECK(answer.contains("atlas"));
    CHECK(on->pool_in_use() == 0);
}

CASE(streaming_gives_the_same_text) {
    server     on(config_of(dir));
    const json greedy = {
        {"prompt", "Once upon a time"}, {"temperature", 0}, {"max_tokens", 24}, {"cache_prompt", false}};
    for (const json & request : {greedy, chat("Hello, my name is Anna."), says("one two three")}) {
        std::string text;
        const json  problem = on->handle_streaming_request(request, [&](const json & chunk) {
            for (const json & choice : chunk.value("choices", json::array())) {
                const json piece = choice.contains("text") ? choice["text"] : choice["delta"].value("content", json());
                text += piece.is_string() ? piece.get<std::string>() : "";
            }
            return true;
        });
        CHECK(problem.is_null());
        CHECK(text == text_of(on->handle_completion_request(request)));
        CHECK(!text.empty());
    }
}

// Both ways to ask.
static std::vector<json> refusals(atlas::AtlasServer & on, const json & request) {
    return {on.handle_completion_request(request),
            on.handle_streaming_request(request, [](const json &) { return true; })};
}

CASE(an_error_names_the_field) {
    server on(config_of(dir));

    const auto with = [](const std::string & name, const json & value) {
        json request  = says("x");
        request[name] = value;
        return request;
    };
    const std::string broken = "a\xff";
    const struct {
        json        request;
        std::string named;
    } wrong[] = {
        {json(), "body"},
        {json::array({1}), "body"},
        {"text", "body"},
        {json::object(), "prompt"},
        {{{"messages", 7}}, "messages"},
        {with("prompt", broken), "prompt"},
        {with("user", {{"name", {broken}}}), "user"},
        {with(broken, 1), "body"},
        {with("atlas", 7), "atlas"},
        {with("atlas", {{"session_id", 7}}), "atlas.session_id"},
        {with("n_probs", "many"), "n_probs"},
        {with("grammar", "root ::= ("), "grammar"},
    };
    for (const auto & [request, named] : wrong) {
        for (const json & answer : refusals(*on, request)) {
            if (!contains(error_of(answer), named)) {
                std::cerr << "of " << named << ": " << answer << '\n';
            }
            CHECK(code_of(answer) == 400);
            CHECK(contains(error_of(answer), named));
        }
    }
    CHECK(on->pool_in_use() == 0);
    CHECK(text_of(on->handle_completion_request(says("still here"))) == "still here");
}

CASE(deep_and_huge_json_is_refused) {
    server on(config_of(dir));
    json   deep;
    for (int i = 0; i < 1000000; i++) {
        deep = json::array({std::move(deep)});
    }
    json request     = says("x");
    request["extra"] = std::move(deep);
    for (const json & answer : refusals(*on, request)) {
        CHECK(contains(error_of(answer), "extra"));
    }
    CHECK(contains(error_of(on->handle_config_request(request)), "extra"));
    CHECK(contains(error_of(on->handle_memory_request("save", request)), "extra"));

    atlas::AtlasRequest text;
    text.path = "/v1/completions";
    text.body = "{\"prompt\":" + std::string(1000000, '[');
    CHECK(on->handle(text).status == 400);

    request = {{"prompt", std::string(4 << 20, 'x')}};
    CHECK(code_of(on->handle_completion_request(request)) == 400); // longer than the context
}

CASE(stream_is_for_another_member) {
    server on(config_of(dir));
    json   request    = says("x");
    request["stream"] = true;
    CHECK(contains(error_of(on->handle_completion_request(request)), "stream"));
    request["stream"] = false;
    CHECK(text_of(on->handle_completion_request(request)) == "x");
}

CASE(a_stream_ends_where_nobody_wants_more) {
    server on(config_of(dir));
    int    n_chunks = 0;
    CHECK(on->handle_streaming_request(endless(), [&](const json &) { return ++n_chunks < 3; }).is_null());
    CHECK(n_chunks == 3);
    cases::wait_until([&] { return on->pool_in_use() == 0; });

    struct unusual {};
    for (const auto & request : {endless(), with_session(endless(), "me")}) {
        bool is_passed_on = false;
        try {
            on->handle_streaming_request(request, [](const json &) -> bool { throw unusual(); });
        } catch (const unusual &) {
            is_passed_on = true;
        }
        CHECK(is_passed_on);
        cases::wait_until([&] { return on->pool_in_use() == 0; });
    }
    // the engine's slots, too
    atlas::AtlasRequest slots;
    slots.method = "GET";
    slots.path   = "/slots";
    cases::wait_until([&] { return !contains(on->handle(slots).body, "\"is_processing\":true"); });
}

CASE(who_left_is_not_answered_further) {
    server           on(config_of(dir));
    std::atomic<int> n_asked{0};

    atlas::AtlasRequest request;
    request.path = "/v1/completions";
    request.body = endless().dump();
    // says so once only, and something else after that
    request.is_gone = [&] { return n_asked++ == 1; };
    (void) on->handle(request);
    CHECK(n_asked == 2);
    CHECK(on->pool_in_use() == 0);

    request.is_gone = []() -> bool { throw std::runtime_error("not known"); };
    (void) on->handle(request);
    CHECK(on->pool_in_use() == 0);

    {
        const auto held = open_stream(*on, with_session(says("held"), "held"));
        on->resize_pool(1);
        request.body = with_session(endless(), "waits").dump(); // for a context
        (void) on->handle(request);
        CHECK(on->pool_in_use() == 1);
        on->resize_pool(4);
    }

    std::atomic<bool> is_gone{false};
    {
        const auto  stream = open_stream(*on, endless(), [&] { return is_gone.load(); });
        std::string piece;
        CHECK(stream.next(piece));
        is_gone = true;
        CHECK(!stream.next(piece));
        cases::wait_until([&] { return on->pool_in_use() == 0; });
    }
}

CASE(pieces_begin_with_the_body) {
    server      on(config_of(dir));
    const auto  stream = open_stream(*on, says("one two"));
    std::string text   = stream.body;
    while (stream.next(text)) {
    }
    CHECK(contains(text, "data: [DONE]"));
    const auto before = text;
    CHECK(!stream.next(text)); // once more
    CHECK(text == before);
}

CASE(a_name_of_a_conversation_keeps_no_stream) {
    server              a(config_of(dir)), b(config_of(""));
    atlas::AtlasRequest request;
    request.path    = "/v1/completions";
    request.headers = {{"X-Conversation-Id", "the-same"}};
    json asked      = says("one two three");
    asked["stream"] = true;
    request.body    = asked.dump();
    auto of_a       = a->handle(request);
    auto of_b       = b->handle(request); // does not cut that of the other server
    for (auto * each : {&of_a, &of_b}) {
        std::string text = each->body;
        while (each->next(text)) {
        }
        CHECK(contains(text, "[DONE]"));
    }
}

CASE(a_full_pool_is_answered_as_llama_server_does) {
    auto config            = config_of(dir, 1);
    config.pool_timeout_ms = 1;
    server     on(config);
    auto       held    = open_stream(*on, with_session(says("one"), "a"));
    const json refused = on->handle_completion_request(with_session(says("two"), "b"));
    CHECK(code_of(refused) == 503);
    CHECK(contains(error_of(refused), "pool"));
    CHECK(!refused["error"]["type"].get<std::string>().empty());
    CHECK(on->pool_in_use() == 1);
    held.next = nullptr;
    CHECK(on->pool_in_use() == 0);
    CHECK(text_of(on->handle_completion_request(with_session(says("two"), "b"))) == "two");
}

CASE(what_follows_the_path_is_decoded) {
    server              on(config_of(dir, 1));
    atlas::AtlasRequest slots;
    slots.method = "GET";
    slots.path   = "/slots";
    slots.query  = "a+b=%&&fail%5Fon_no%5fslot=%31";
    CHECK(on->handle(slots).status == 200);
    const auto held = open_stream(*on, with_session(endless(), "a"));
    CHECK(on->handle(slots).status == 503);
    slots.query = "fail+on_no_slot=1&fail_on_no_slot";
    CHECK(on->handle(slots).status == 200);
}

CASE_OF_PYTHON(the_memory_is_asked_by_operation) {
    server on(config_of(dir));

    const json saved = on->handle_memory_request("save", {{"context_id", "notes"}, {"state", {{"a", 1}}}});
    CHECK(error_of(saved).empty());
    const json listed = on->handle_memory_request("list");
    CHECK(contains(listed.dump(), "notes"));
    const json loaded = on->handle_memory_request("load", {{"context_id", "notes"}});
    CHECK(contains(loaded.dump(), "\"a\":1"));
    CHECK(error_of(on->handle_memory_request("delete", {{"context_id", "notes"}})).empty());
    CHECK(code_of(on->handle_memory_request("load", {{"context_id", "notes"}})) == 404);
    CHECK(error_of(on->handle_memory_request("flush")).empty());
    CHECK(code_of(on->handle_memory_request("no-such")) == 404);
    CHECK(code_of(on->handle_memory_request("../config", {{"session_ttl_s", 1}})) == 404);
    CHECK(code_of(on->handle_memory_request("save", {{"context_id", "\xff"}})) == 400);
}

CASE_OF_PYTHON(settings_change_all_or_none) {
    server on(config_of(dir));
    CHECK(error_of(on->handle_config_request({{"pool_timeout_ms", 5}})).empty());
    CHECK(contains(on->handle_config_request()["data"].dump(), "\"pool_timeout_ms\""));
    const json wrong = on->handle_config_request({{"pool_timeout_ms", 7}, {"max_sessions", -1}});
    CHECK(code_of(wrong) == 400);
    CHECK(contains(error_of(wrong), "max_sessions"));
    CHECK(contains(error_of(on->handle_config_request({{"memory_save_path", "/elsewhere"}})), "memory_save_path"));
    CHECK(code_of(on->handle_config_request(json::array())) == 400);
}

CASE_OF_PYTHON(metrics_are_of_one_server) {
    server a(config_of(dir)), b(config_of(""));
    for (int i = 0; i < 3; i++) {
        (void) a->handle_completion_request(says("x"));
    }
    const auto n_requests = [](const server & of) {
        return of->handle_metrics_request()["data"]["current"]["total_requests"].get<int>();
    };
    CHECK(n_requests(a) == 3);
    CHECK(n_requests(b) == 0);
}
