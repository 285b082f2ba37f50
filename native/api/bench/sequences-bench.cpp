// Many sequences at once, as those of one context or as contexts of one sequence each:
//
//     atlas-bench-sequences MODEL SERVERS SEQUENCES REQUESTS TOKENS THREADS [MAX_CONTEXTS]
//
// makes so many AtlasServers with so many sequences each, and for each sequence a client, which asks so many times for so many
// tokens. THREADS: that each server decodes with. MAX_CONTEXTS: so many sequences are made, of which the clients use no more than
// without. Prints JSON: tokens a second, and resident MiB with the model, with the servers, and after.
#include "../../examples/model.hpp"
#include "atlas-server.hpp"

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

static double resident_mib() {
    size_t        n_total = 0, n_resident = 0;
    std::ifstream from("/proc/self/statm");
    from >> n_total >> n_resident;
    return (double) n_resident * (double) sysconf(_SC_PAGESIZE) / (1 << 20);
}

int main(int argc, char ** argv) {
    if (argc < 7) {
        std::fprintf(stderr, "usage: %s MODEL SERVERS SEQUENCES REQUESTS TOKENS THREADS [MAX_CONTEXTS]\n", argv[0]);
        return 1;
    }
    const int n_servers = std::atoi(argv[2]), n_sequences = std::atoi(argv[3]), n_requests = std::atoi(argv[4]),
              n_tokens = std::atoi(argv[5]);
    try {
        const auto   model   = load_model(argv[1]);
        const double mib_one = resident_mib();

        atlas::AtlasServerConfig config;
        config.context_pool_size = n_sequences;

        atlas::AtlasModelOptions options;
        options.arguments    = {"-c", std::to_string(256 * n_sequences), "-t", argv[6]};
        options.model_path   = argv[1];
        options.max_contexts = argc > 7 ? std::atoi(argv[7]) : 0;

        std::vector<std::unique_ptr<atlas::AtlasServer>> servers;
        for (int i = 0; i < n_servers; i++) {
            servers.push_back(std::make_unique<atlas::AtlasServer>(config));
            servers.back()->initialize(model.get(), options);
        }
        const double mib_ready = resident_mib();

        std::atomic<int>         n_answered = 0, n_failed = 0;
        std::vector<std::thread> clients;
        const auto               began = std::chrono::steady_clock::now();
        for (int i = 0; i < n_servers * n_sequences; i++) {
            clients.emplace_back([&, i] {
                for (int j = 0; j < n_requests; j++) {
                    const auto answer =
                        servers[i % n_servers]->handle_completion_request({{"prompt", {5, 6, 7, 8 + i, 8 + j}},
                                                                           {"max_tokens", n_tokens},
                                                                           {"ignore_eos", true},
                                                                           {"temperature", 0}});
                    if (answer.contains("error")) {
                        n_failed++;
                        continue;
                    }
                    n_answered += answer["usage"]["completion_tokens"].get<int>();
                }
            });
        }
        for (auto & client : clients) {
            client.join();
        }
        const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
        std::printf(
            "{\"tokens\": %d, \"failed\": %d, \"tokens_per_s\": %.1f, \"model_mib\": %.1f, \"ready_mib\": %.1f, "
            "\"mib\": %.1f}\n",
            n_answered.load(), n_failed.load(), n_answered / seconds, mib_one, mib_ready, resident_mib());
    } catch (const std::exception & error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
