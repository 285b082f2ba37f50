// A program with one thread and no HTTP, as a desktop application would be: a chat that goes on after the program was killed.
// desktop MODEL MEMORY_DIRECTORY MESSAGE…: says each message in turn, and prints what it got.
#include "atlas-server.hpp"
#include "model.hpp"

#include <cstdio>

int main(int argc, char ** argv) {
    if (argc < 4) {
        std::fprintf(stderr, "usage: %s MODEL MEMORY_DIRECTORY MESSAGE…\n", argv[0]);
        return 1;
    }
    try {
        const auto               loaded = load_model(argv[1]);
        atlas::AtlasServerConfig config;
        config.memory_save_path  = argv[2];
        config.context_pool_size = 1;

        atlas::AtlasServer server(config);
        server.initialize(loaded.get(), {{"-c", "2048"}, argv[1]});
        for (int i = 3; i < argc; i++) {
            // the server keeps the messages: each request has the new one only
            const auto answer =
                server.handle_completion_request({{"messages", {{{"role", "user"}, {"content", argv[i]}}}},
                                                  {"temperature", 0},
                                                  {"atlas", {{"session_id", "desktop"}, {"history", "server"}}}});
            if (answer.contains("error")) {
                throw std::runtime_error(answer["error"]["message"].get<std::string>());
            }
            std::printf("%s\n", answer["choices"][0]["message"]["content"].get<std::string>().c_str());
            std::fprintf(stderr, "%d of %d tokens were known\n", answer["timings"]["cache_n"].get<int>(),
                         answer["usage"]["prompt_tokens"].get<int>());
            server.handle_memory_request("flush");
            std::fflush(stdout);
        }
    } catch (const std::exception & error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
