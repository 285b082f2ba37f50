// Full control: a configuration of your own, streaming, metrics. advanced MODEL [MEMORY_DIRECTORY]
#include "atlas-server.hpp"
#include "model.hpp"

#include <cstdio>

int main(int argc, char ** argv) {
    if (argc < 2) {
        std::fprintf(stderr, "usage: %s MODEL [MEMORY_DIRECTORY]\n", argv[0]);
        return 1;
    }
    try {
        const auto loaded      = load_model(argv[1]);
        auto *     llama_model = loaded.get();

        atlas::AtlasServerConfig config;
        config.enable_memory_persistence     = true;
        config.memory_save_path              = argc > 2 ? argv[2] : "./atlas_memory";
        config.max_concurrent_atlas_requests = 16;

        atlas::AtlasServer atlas_server(config);
        atlas_server.initialize(llama_model, {{"-c", "4096"}, argv[1]});

        const atlas::json request  = {{"messages", {{{"role", "user"}, {"content", "Hello, my name is Anna."}}}},
                                      {"temperature", 0},
                                      {"atlas", {{"session_id", "anna"}}}};
        auto              response = atlas_server.handle_completion_request(request);
        std::printf("%s\n", response["choices"][0]["message"]["content"].get<std::string>().c_str());

        const auto error = atlas_server.handle_streaming_request(request, [](const atlas::json & chunk) {
            const auto & choices = chunk.value("choices", atlas::json::array());
            if (!choices.empty() && choices[0]["delta"].contains("content") &&
                choices[0]["delta"]["content"].is_string()) {
                std::printf("%s|", choices[0]["delta"]["content"].get<std::string>().c_str());
            }
            return true;
        });
        std::printf("%s\n", error.is_null() ? "" : error.dump().c_str());

        auto metrics = atlas_server.handle_metrics_request();
        std::printf("%s\n", metrics["data"]["current"]["total_requests"].dump().c_str());
    } catch (const std::exception & error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
