// A pool that grows beyond its first size.
#include "api-test.hpp"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <stdexcept>
#include <thread>

using namespace api;

// How many sequences compute now.
static int n_processing(atlas::AtlasServer & on) {
    const json slots = get(on, "/slots");
    return (int) std::count_if(slots.begin(), slots.end(),
                               [](const json & slot) { return slot["is_processing"] == true; });
}

CASE(a_pool_grows_under_load) {
    auto config            = config_of(dir, 2);
    config.pool_timeout_ms = 3600000;
    server on(config, "", nullptr, 6);
    CHECK(on->pool_size() == 2);

    std::mutex                        mutex;
    std::vector<atlas::AtlasResponse> open;
    const auto                        n_open = [&] {
        const std::lock_guard<std::mutex> held(mutex);
        return (int) open.size();
    };
    std::atomic<int> n_waiting{0};
    std::thread      all([&] {
        in_threads(6, [&](int i) {
            auto stream = open_stream(*on, with_session(endless(), "session-" + std::to_string(i)),
                                      [&n_waiting, is_first = true]() mutable {
                                          n_waiting += is_first; // asked while it waits
                                          is_first = false;
                                          return false;
                                      });
            const std::lock_guard<std::mutex> held(mutex);
            open.push_back(std::move(stream));
        });
    });
    cases::wait_until([&] { return n_open() == 2 && n_waiting >= 4; });
    CHECK(on->pool_in_use() == 2 && n_processing(*on) == 2);

    on->resize_pool(4);
    cases::wait_until([&] { return n_open() == 4; });
    CHECK(on->pool_in_use() == 4);
    on->resize_pool(1);
    CHECK(on->pool_size() == 1 && on->pool_in_use() == 4); // who holds one keeps it
    on->resize_pool(6);
    all.join();
    CHECK(on->pool_in_use() == 6);
    cases::wait_until([&] { return n_processing(*on) == 6; });
    for (int round = 0; round < 3; round++) { // all of them go on, none has ended
        for (auto & stream : open) {
            std::string piece;
            CHECK(stream.next(piece) && contains(piece, "data: "));
        }
    }
    on->resize_pool(2);
    open.clear();
    CHECK(on->pool_in_use() == 0 && on->pool_size() == 2);
    on->resize_pool(6);
    std::atomic<int> n_right{0};
    in_threads(12, [&](int i) {
        const std::string text = "again " + std::to_string(i);
        n_right += text_of(on->handle_completion_request(with_session(says(text), "s" + std::to_string(i)))) == text;
    });
    CHECK(n_right == 12);
    CHECK(contains(thrown_by<std::invalid_argument>([&] { on->resize_pool(7); }), "1 to 6"));
    CHECK(on->pool_size() == 6);
}

CASE(what_max_contexts_may_be) {
    const auto         model = load_model();
    atlas::AtlasServer on(config_of(dir, 4));
    for (const int wrong : {-1, 1, 3, 257, 1 << 30}) {
        CHECK(contains(thrown_by<std::invalid_argument>([&] { on.initialize(model.get(), {{}, "", nullptr, wrong}); }),
                       "max_contexts"));
    }
    const std::vector<std::string> np = {"-np", "8"};
    CHECK(contains(thrown_by<std::invalid_argument>([&] { on.initialize(model.get(), {np, "", nullptr, 8}); }),
                   "max_contexts"));
    on.initialize(model.get(), {{"-c", "1024"}, "", nullptr, 4});
    CHECK(on.pool_size() == 4);
    CHECK(!thrown_by<std::invalid_argument>([&] { on.resize_pool(5); }).empty());
}

static int n_slots(const std::vector<std::string> & arguments, const atlas::AtlasServerConfig & config) {
    server on(config, "", nullptr, 0, arguments);
    CHECK(text_of(on->handle_completion_request(with_session(says("x"), "me"))) == "x");
    CHECK(on->pool_size() == (int) get(*on, "/slots").size());
    CHECK(on->handle_status_request()["data"]["context_pool_size"] == on->pool_size());
    return on->pool_size();
}

CASE(a_pool_has_no_more_contexts_than_there_are_sequences) {
    const int n_possible = (int) llama_max_parallel_sequences();
    CHECK(n_slots({"-np", "2"}, config_of(dir, 8)) == 2);
    CHECK(n_slots({}, config_of(dir, n_possible + 1)) == n_possible); // as twice the hardware's threads may be
    auto config                          = config_of(dir, 0);
    config.max_concurrent_atlas_requests = n_possible + 1;
    CHECK(n_slots({}, config) == n_possible);
}

CASE(a_pool_whose_size_no_setting_says_grows_too) {
    auto config                          = config_of(dir, 0);
    config.max_concurrent_atlas_requests = 3;
    server on(config, "", nullptr, 5);
    CHECK(on->pool_size() == 3);
    on->resize_pool(5);
    CHECK(on->pool_size() == 5);
    CHECK(get(*on, "/slots").size() == 5);
}
