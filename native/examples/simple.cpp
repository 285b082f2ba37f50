// The shortest integration: simple MODEL [JSON of a completion request].
#include "atlas-integration.hpp"
#include "model.hpp"

#include <cstdio>

static atlas::json handle(const atlas::json & request) {
    if (atlas::is_atlas_request(request)) {
        auto response = atlas::process_with_atlas(request);
        return atlas::enhance_response_with_atlas(response, true);
    }
    return atlas::process_with_atlas(request);
}

int main(int argc, char ** argv) {
    if (argc < 2) {
        std::fprintf(stderr, "usage: %s MODEL [REQUEST]\n", argv[0]);
        return 1;
    }
    try {
        const auto loaded = load_model(argv[1]);
        auto *     model  = loaded.get();
        atlas::init_atlas(model);

        const auto request = argc > 2 ? atlas::json::parse(argv[2])
                                      : atlas::json{{"messages", {{{"role", "user"}, {"content", "Hello!"}}}},
                                                    {"atlas", {{"session_id", "me"}}}};
        std::printf("%s\n", handle(request).dump(2).c_str());

        auto info = atlas::get_atlas_info();
        std::printf("ATLAS %s: %s\n", info["version"].get<std::string>().c_str(),
                    info["status"]["status"].get<std::string>().c_str());
        atlas::shutdown_atlas();
    } catch (const std::exception & error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
