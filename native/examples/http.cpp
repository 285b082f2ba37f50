// The routes in a cpp-httplib server of your own: http MODEL PORT [MEMORY_DIRECTORY [OPTION…]]. PORT 0: one that is free.
// OPTION…: as of llama-server's command line, "-c 8192 -np 4"; without any the context has 4,096 tokens.
#include <httplib.h>

#include "atlas-endpoints.hpp"
#include "model.hpp"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

int main(int argc, char ** argv) {
    if (argc < 3) {
        std::fprintf(stderr, "usage: %s MODEL PORT [MEMORY_DIRECTORY [OPTION…]]\n", argv[0]);
        return 1;
    }
    // of all threads, so that the one that waits for them gets them
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &ends, nullptr);
    try {
        httplib::Server server;
        // Each request has a thread until it is answered. Without this there are so few that requests wait for one, before
        // ATLAS can see or refuse them.
        server.new_task_queue = [] { return new httplib::ThreadPool(40, 1024); };
        // Without this two programs may listen on one port, and share its clients.
        server.set_socket_options(
            [](socket_t socket) { httplib::set_socket_opt(socket, SOL_SOCKET, SO_REUSEADDR, 1); });
        ATLAS_ADD_ENDPOINTS(server);
        ATLAS_ADD_COMPLETION_ENDPOINTS(server);
        server.Post("/my/config", handle_atlas_config); // or one by one, under names of your own

        int port = std::atoi(argv[2]);
        if (port == 0) {
            port = server.bind_to_any_port("127.0.0.1");
        } else if (!server.bind_to_port("127.0.0.1", port)) {
            throw std::runtime_error(std::string("cannot listen on port ") + argv[2]);
        }

        const auto loaded = load_model(argv[1]);
        auto       config = atlas::AtlasServerConfig::from_environment();
        if (argc > 3) {
            config.memory_save_path = argv[3];
        }
        const auto options =
            argc > 4 ? std::vector<std::string>(argv + 4, argv + argc) : std::vector<std::string>{"-c", "4096"};
        atlas::init_atlas(loaded.get(), config, {options, argv[1]});

        std::thread stopper([&] {
            int number = 0;
            sigwait(&ends, &number);
            server.wait_until_ready();
            server.stop();
        });
        std::printf("listening on http://127.0.0.1:%d\n", port);
        std::fflush(stdout);
        server.listen_after_bind();
        stopper.join();
        atlas::shutdown_atlas();
    } catch (const std::exception & error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
