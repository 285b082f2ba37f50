// Servers of different models in one process.
#include "api-test.hpp"

#include <ggml.h>
#include <gguf.h>

#include <cstdlib>
#include <memory>
#include <thread>

using namespace api;

static const char BLOCK_COUNT[] = "llama.block_count";

// The tests' model without its last layer, as a file: its state has another shape, and it says other things.
static std::string write_smaller_model(const std::string & path) {
    ggml_context * tensors = nullptr;

    const std::unique_ptr<gguf_context, void (*)(gguf_context *)> from(
        gguf_init_from_file(model_path().c_str(), {/*no_alloc=*/false, &tensors}), gguf_free),
        to(gguf_init_empty(), gguf_free);
    const std::unique_ptr<ggml_context, void (*)(ggml_context *)> held(tensors, ggml_free);
    CHECK(from && to && gguf_find_key(from.get(), BLOCK_COUNT) >= 0);
    const uint32_t n_blocks = gguf_get_val_u32(from.get(), gguf_find_key(from.get(), BLOCK_COUNT)) - 1;
    gguf_set_kv(to.get(), from.get());
    gguf_set_val_u32(to.get(), BLOCK_COUNT, n_blocks);
    gguf_set_val_str(to.get(), "general.name", "smaller");
    const std::string last = "blk." + std::to_string(n_blocks) + ".";
    for (int64_t i = 0; i < gguf_get_n_tensors(from.get()); i++) {
        const std::string name = gguf_get_tensor_name(from.get(), i);
        if (name.compare(0, last.size(), last) != 0) {
            gguf_add_tensor(to.get(), ggml_get_tensor(tensors, name.c_str()));
        }
    }
    CHECK(gguf_write_to_file(to.get(), path.c_str(), false));
    return path;
}

// tests/api/test_two_models.py names models of other architectures.
static std::string other_model_path(const std::string & dir) {
    const char * path = std::getenv("ATLAS_TEST_OTHER_MODEL");
    return path != nullptr ? path : write_smaller_model(dir + "/smaller.gguf");
}

namespace {

struct one {
    std::string        path;
    api::model         model;
    atlas::AtlasServer server;

    one(const std::string & path, const std::string & memory)
        : path(path), model(llama_model_load_from_file(path.c_str(), llama_model_default_params()), llama_model_free),
          server(config_of(memory, 2)) {
        CHECK(model);
        server.initialize(model.get(), {{"-c", "1024", "-t", "1"}, path});
        cases::wait_until([&] { // for what is on the disk to be known
            const json memory = server.handle_status_request()["data"]["memory"];
            return memory.is_object() && memory["root"].is_string() && memory["disk"]["index_complete"] == true;
        });
    }

    std::string root() { return server.handle_status_request()["data"]["memory"]["root"]; }
};

struct said {
    std::vector<json> tokens; // of each turn
    int               n_reused = 0; // in the first
};

} // namespace

// Three turns, as tokens: models of tests have no words.
static said talk(one & with, int number) {
    said all;
    json tokens;
    for (int turn = 0; turn < 3; turn++) {
        for (int i = 0; i < 40; i++) {
            tokens.push_back(5 + (number * 31 + turn * 17 + i * 7) % 90);
        }
        atlas::AtlasRequest request;
        request.path      = "/completion";
        request.body      = json{{"prompt", tokens},      {"n_predict", 12},
                                 {"temperature", 0},      {"ignore_eos", true},
                                 {"return_tokens", true}, {"atlas", {{"session_id", "talk-" + std::to_string(number)}}}}
                                .dump();
        const json answer = json::parse(with.server.handle(request).body);
        CHECK(error_of(answer).empty() && answer["tokens"].size() == 12);
        tokens.insert(tokens.end(), answer["tokens"].begin(), answer["tokens"].end());
        all.tokens.push_back(answer["tokens"]);
        all.n_reused = turn == 0 ? answer["timings"]["cache_n"].get<int>() : all.n_reused;
    }
    return all;
}

static constexpr int N_TALKS = 6;

static std::vector<said> talk_all(one & with) {
    std::vector<said> all;
    for (int i = 0; i < N_TALKS; i++) {
        all.push_back(talk(with, i));
    }
    return all;
}

CASE(two_models_at_once_answer_as_alone) {
    load_model(); // quiet, and ready
    const std::string paths[] = {model_path(), other_model_path(dir)};
    std::vector<said> alone[2], both[2];
    for (int i = 0; i < 2; i++) {
        one only(paths[i], dir + "/alone-" + std::to_string(i));
        alone[i] = talk_all(only);
    }
    {
        one a(paths[0], dir + "/a"), b(paths[1], dir + "/b");
        CHECK(a.root() != b.root());
        in_threads(2, [&](int i) { both[i] = talk_all(i == 0 ? a : b); });
    }
    for (int i = 0; i < 2; i++) {
        for (int number = 0; number < N_TALKS; number++) {
            CHECK(both[i][number].tokens == alone[i][number].tokens && both[i][number].n_reused == 0);
        }
    }
    CHECK(both[0][0].tokens != both[1][0].tokens);

    // each finds its own after a start, and goes on in the same way
    one  a(paths[0], dir + "/a"), b(paths[1], dir + "/b");
    said again[2];
    in_threads(2, [&](int i) { again[i] = talk(i == 0 ? a : b, 1); });
    for (int i = 0; i < 2; i++) {
        CHECK(again[i].n_reused > 0 && again[i].tokens[0] == alone[i][1].tokens[0]);
    }
}

CASE(one_of_two_models_is_freed_while_the_other_works) {
    load_model();
    const std::string other = other_model_path(dir);
    auto              a     = std::make_unique<one>(model_path(), dir + "/a");
    one               b(other, dir + "/b");
    const auto        before = talk(b, 1).tokens;
    std::thread       ending([&] { a.reset(); });
    for (int i = 2; i < 5; i++) {
        talk(b, i);
    }
    ending.join();
    one only(other, dir + "/c");
    CHECK(talk(only, 1).tokens == before);
}
