#include "api-test.hpp"

#include <cstdlib>
#include <thread>
#include <utility>

int main(int argc, char ** argv) { return cases::run(argc, argv); }

namespace api {

std::string model_path() {
    const char * path = std::getenv("ATLAS_TEST_MODEL");
    CHECK(path != nullptr);
    return path;
}

model load_model() {
    llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    llama_backend_init();
    model loaded(llama_model_load_from_file(model_path().c_str(), llama_model_default_params()), llama_model_free);
    CHECK(loaded != nullptr);
    return loaded;
}

atlas::AtlasServerConfig config_of(const std::string & memory, int n_pool) {
    atlas::AtlasServerConfig config;
    config.memory_save_path   = memory;
    config.context_pool_size  = n_pool;
    config.block_tokens       = 16;
    config.log_level          = atlas::LogLevel::ERROR;
    config.python_patience_ms = 60000; // on a busy machine, too, the status has what Python adds
    return config;
}

server::server(const atlas::AtlasServerConfig & config, const std::string & model_path,
               std::shared_ptr<atlas::AtlasMemoryPolicy> policy, int max_contexts,
               const std::vector<std::string> & further_arguments)
    : model(load_model()), atlas(std::make_unique<atlas::AtlasServer>(config)) {
    std::vector<std::string> arguments = {"-c", "4096", "--context-shift", "-t", "1"};
    arguments.insert(arguments.end(), further_arguments.begin(), further_arguments.end());
    atlas->initialize(model.get(), {arguments, model_path, std::move(policy), max_contexts});
}

json says(const std::string & text) {
    return {{"prompt", "Say it."}, {"max_tokens", 64}, {"grammar", "root ::= \"" + text + "\""}};
}

json endless() { return {{"prompt", "Once upon a time"}, {"max_tokens", -1}, {"ignore_eos", true}}; }

json with_session(json request, const std::string & session) {
    request["atlas"] = {{"session_id", session}};
    return request;
}

std::string text_of(const json & answer) {
    if (!answer.contains("choices")) {
        return "no answer: " + answer.dump();
    }
    const json & choice = answer["choices"][0];
    return choice.contains("message") ? choice["message"]["content"] : choice["text"];
}

std::string error_of(const json & answer) {
    return answer.is_object() && answer.contains("error") ? answer["error"].value("message", "?") : "";
}

int code_of(const json & answer) {
    return answer.is_object() && answer.contains("error") ? answer["error"].value("code", -1) : 200;
}

bool contains(const std::string & text, const std::string & part) { return text.find(part) != std::string::npos; }

json get(atlas::AtlasServer & on, const std::string & path) {
    atlas::AtlasRequest request;
    request.method = "GET";
    request.path   = path;
    return json::parse(on.handle(request).body);
}

atlas::AtlasResponse open_stream(atlas::AtlasServer & on, json request, std::function<bool()> is_gone) {
    request["stream"] = true;
    atlas::AtlasRequest to;
    to.path     = "/v1/completions";
    to.body     = request.dump();
    to.is_gone  = std::move(is_gone);
    auto answer = on.handle(to);
    CHECK(answer.next);
    return answer;
}

void in_threads(int n, const std::function<void(int)> & call) {
    std::vector<std::thread> threads;
    for (int i = 0; i < n; i++) {
        threads.emplace_back(call, i);
    }
    for (auto & thread : threads) {
        thread.join();
    }
}

} // namespace api
