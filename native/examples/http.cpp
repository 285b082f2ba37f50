// The routes in a cpp-httplib server of your own: http MODEL PORT [MEMORY_DIRECTORY]
#include <httplib.h>

#include "atlas-endpoints.hpp"
#include "model.hpp"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <thread>

int main(int argc, char ** argv) {
    if (argc < 3) {
        std::fprintf(stderr, "usage: %s MODEL PORT [MEMORY_DIRECTORY]\n", argv[0]);
        return 1;
    }
    // of all threads, so that the one that waits for them gets them
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &ends, nullptr);
    try {
        const auto loaded = load_model(argv[1]);

        auto config = atlas::AtlasServerConfig::from_environment();
        if (argc > 3) {
            config.memory_save_path = argv[3];
        }
        atlas::init_atlas(loaded.get(), config, {{"-c", "4096"}, argv[1]});

        httplib::Server server;
        ATLAS_ADD_ENDPOINTS(server);
        ATLAS_ADD_COMPLETION_ENDPOINTS(server);
        server.Post("/my/config", handle_atlas_config); // or one by one, under names of your own

        std::thread stopper([&] {
            int number = 0;
            sigwait(&ends, &number);
            server.stop();
        });
        if (!server.listen("127.0.0.1", std::atoi(argv[2]))) {
            std::fprintf(stderr, "cannot listen on port %s\n", argv[2]);
            raise(SIGTERM);
        }
        stopper.join();
        atlas::shutdown_atlas();
    } catch (const std::exception & error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
