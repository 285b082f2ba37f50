// Many threads in one server.
#include "api-test.hpp"

#include <atomic>
#include <stdexcept>
#include <thread>

using namespace api;

// How often each thread asks. A sanitizer makes all of it slower.
static const int N_ROUNDS = cases::IS_SANITIZED ? 2 : 4;

static void leave(atlas::AtlasServer & on, const json & asked) {
    atlas::AtlasRequest request;
    request.path    = "/v1/completions";
    request.body    = asked.dump();
    request.is_gone = [n_asked = 0]() mutable { return ++n_asked > 1; };
    (void) on.handle(request);
}

static void read_a_piece(atlas::AtlasServer & on, json asked) {
    asked["stream"] = true;
    atlas::AtlasRequest request;
    request.path       = "/v1/completions";
    request.body       = asked.dump();
    const auto  answer = on.handle(request);
    std::string piece;
    if (answer.next) { // else it was told that the pool is full
        (void) answer.next(piece);
    }
}

// One request of a kind that the number chooses; whether it came out as it has to.
static bool ask_somehow(atlas::AtlasServer & on, int i, int round) {
    const std::string text    = "number " + std::to_string(i) + " of " + std::to_string(round);
    const json        request = i % 2 ? with_session(says(text), "session-" + std::to_string(i)) : says(text);
    switch (i / 2 % 6) {
        case 0: { // may be told that the pool is full
            const json answer = on.handle_completion_request(request);
            return text_of(answer) == text || (i % 2 && code_of(answer) == 503);
        }
        case 1: // throws
            try {
                const auto answer = on.handle_streaming_request(
                    request, [](const json &) -> bool { throw std::runtime_error("enough"); });
                return code_of(answer) == 503;
            } catch (const std::runtime_error & problem) {
                return problem.what() == std::string("enough");
            }
        case 2: { // is wrong
            json wrong       = request;
            wrong["grammar"] = "root ::= (";
            const int code   = code_of(on.handle_completion_request(wrong));
            return code == 400 || code == 503;
        }
        case 3: { // does not wait for the end
            const json answer = on.handle_streaming_request(endless(), [](const json &) { return false; });
            return answer.is_null();
        }
        case 4: // leaves, while it waits for a context or for tokens
            leave(on, i % 2 ? with_session(endless(), "session-" + std::to_string(i)) : endless());
            return true;
        default: // reads a piece, and no more
            read_a_piece(on, i % 2 ? with_session(endless(), "session-" + std::to_string(i)) : endless());
            return true;
    }
}

// 32 threads hold all contexts until 16 others have waited for one in vain; then all 64 ask in all ways at once.
CASE(every_lease_comes_back) {
    auto config                          = config_of(dir, 32);
    config.pool_timeout_ms               = 5;
    config.max_concurrent_atlas_requests = 64;
    server           on(config);
    std::atomic<int> n_wrong{0}, n_hold{0}, n_late{0};
    in_threads(64, [&](int i) {
        const std::string name = "session-" + std::to_string(i);
        if (i < 32) {
            const auto held = open_stream(*on, with_session(says("held"), name)); // nobody reads it
            n_hold++;
            cases::wait_until([&] { return n_late == 16; });
        }
        cases::wait_until([&] { return n_hold == 32; });
        if (i >= 32 && i % 2) {
            n_wrong += code_of(on->handle_completion_request(with_session(says("late"), name))) != 503;
            n_late++;
        }
        for (int round = 0; round < N_ROUNDS; round++) {
            n_wrong += !ask_somehow(*on, i, round);
        }
    });
    CHECK(n_wrong == 0);
    cases::wait_until([&] { return on->pool_in_use() == 0; });
    CHECK(on->pool_size() == 32);
    CHECK(text_of(on->handle_completion_request(with_session(says("after it"), "me"))) == "after it");
}

CASE(the_pool_changes_while_requests_wait) {
    auto config            = config_of(dir, 4);
    config.pool_timeout_ms = 3600000;
    server on(config);
    CHECK(contains(thrown_by<std::invalid_argument>([&] { on->resize_pool(5); }), "4"));
    CHECK(!thrown_by<std::invalid_argument>([&] { on->resize_pool(0); }).empty());

    std::vector<atlas::AtlasResponse> held;
    for (int i = 0; i < 4; i++) {
        held.push_back(open_stream(*on, with_session(says("held"), "held-" + std::to_string(i))));
    }
    CHECK(on->pool_in_use() == 4);
    std::atomic<int>  n_wait{0}, n_right{0};
    const std::thread all([&] {
        in_threads(8, [&](int i) {
            const auto          text     = "waited " + std::to_string(i);
            bool                is_first = true;
            atlas::AtlasRequest request;
            request.path    = "/v1/completions";
            request.body    = with_session(says(text), "session-" + std::to_string(i)).dump();
            request.is_gone = [&, is_first]() mutable {
                n_wait += is_first; // asked while it waits
                is_first = false;
                return false;
            };
            n_right += text_of(json::parse(on->handle(request).body)) == text;
        });
    });
    cases::wait_until([&] { return n_wait >= 8; });
    on->resize_pool(1);
    CHECK(on->pool_size() == 1);
    CHECK(on->pool_in_use() == 4); // who holds one keeps it
    held.resize(1);
    cases::wait_until([&] { return on->pool_in_use() == 1; });
    CHECK(n_right == 0); // the one that there is is held
    on->resize_pool(4);
    const_cast<std::thread &>(all).join();
    CHECK(n_right == 8);
    held.clear();
    CHECK(on->pool_in_use() == 0);
}

CASE(a_server_ends_while_threads_are_inside) {
    auto config            = config_of(dir, 8);
    config.pool_timeout_ms = 3600000;
    server               on(config);
    atlas::AtlasServer & inside = *on; // on.atlas is null from its end on
    std::atomic<int>     n_streamed{0}, n_asked{0}, n_wrong{0};
    // half of them are answered, a few of these as a stream; the others wait for a context
    std::thread streaming([&] {
        in_threads(4, [&](int i) {
            bool       is_first = true;
            const json end =
                inside.handle_streaming_request(with_session(endless(), "s" + std::to_string(i)), [&](const json &) {
                    n_streamed += is_first;
                    is_first = false;
                    return true;
                });
            n_wrong += code_of(end) != 503;
        });
    });
    cases::wait_until([&] { return n_streamed == 4; });
    std::thread others([&] {
        in_threads(12, [&](int i) {
            bool                is_first = true;
            atlas::AtlasRequest request;
            request.path    = "/v1/completions";
            request.body    = with_session(endless(), "t" + std::to_string(i)).dump();
            request.is_gone = [&] {
                n_asked += is_first;
                is_first = false;
                return false;
            };
            n_wrong += inside.handle(request).status != 503;
        });
    });
    // who has a context is asked whether it left, too, so that all are inside
    cases::wait_until([&] { return n_asked == 12 && inside.pool_in_use() == 8; });
    on.atlas.reset();
    streaming.join();
    others.join();
    CHECK(n_wrong == 0);
}

CASE(the_end_waits_for_who_looks_at_a_piece) {
    server               on(config_of(dir));
    atlas::AtlasServer & inside = *on;
    std::atomic<bool>    is_looking{false}, has_looked{false};
    std::thread          streaming([&] {
        inside.handle_streaming_request(endless(), [&](const json &) {
            is_looking = true;
            cases::wait_until([&] { return code_of(inside.handle_completion_request(says("x"))) == 503; }); // it ends
            has_looked = true;
            return false;
        });
    });
    cases::wait_until([&] { return is_looking.load(); });
    on.atlas.reset();
    CHECK(has_looked);
    streaming.join();
}

CASE(one_server_ends_while_the_other_works) {
    server            a(config_of(dir + "/a")), b(config_of(dir + "/b"));
    std::thread       in_a([&] {
        const json end = a->handle_streaming_request(endless(), [](const json &) { return true; });
        CHECK(code_of(end) == 503);
    });
    std::atomic<bool> is_over{false};
    std::atomic<int>  n_right{0}, n_asked{0};
    std::thread       in_b([&] {
        while (!is_over) {
            n_right += text_of(b->handle_completion_request(with_session(says("of b"), "me"))) == "of b";
            n_asked++;
        }
    });
    cases::wait_until([&] { return a->pool_in_use() == 1 && n_asked > 0; });
    a.atlas.reset();
    a.model.reset();
    const int before = n_asked;
    cases::wait_until([&] { return n_asked > before + 1; });
    is_over = true;
    in_a.join();
    in_b.join();
    CHECK(n_right == n_asked);
    CHECK(contains(b->handle_status_request().dump(), "\"status\""));
}

CASE(a_thread_may_be_in_two_servers) {
    server a(config_of(dir)), b(config_of(""));
    int    n_right = 0;
    // from on_chunk and from is_gone, of the other server and of the same
    CHECK(a->handle_streaming_request(says("outer"), [&](const json &) {
               n_right += text_of(b->handle_completion_request(says("inner"))) == "inner";
               n_right += text_of(a->handle_completion_request(says("same"))) == "same";
               return n_right < 4;
           }).is_null());
    CHECK(n_right >= 2);

    atlas::AtlasRequest request;
    std::string         inner;
    request.path    = "/v1/completions";
    request.body    = endless().dump();
    request.is_gone = [&] {
        inner = text_of(b->handle_completion_request(says("asked")));
        return true;
    };
    (void) a->handle(request);
    CHECK(inner == "asked");
    CHECK(text_of(a->handle_completion_request(says("outer again"))) == "outer again");
    CHECK(a->pool_in_use() == 0 && b->pool_in_use() == 0);
}
