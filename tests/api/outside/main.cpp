// The C++ of the integration guide, as it stands there, in functions that have the variables that it assumes. Prints what came
// of it as JSON: outside MODEL.
#include <httplib.h>
#include <llama.h>

#include "atlas-endpoints.hpp"
#include "atlas-integration.hpp"
#include "atlas-server.hpp"

#include <cstdio>
#include <thread>

using atlas::json;

static json simple_integration(llama_model * model, const json & request) {
#include "simple-integration.inc"
    return info;
}

static json advanced_integration(llama_model * llama_model, const json & request) {
#include "advanced-integration.inc"
    return {{"response", response}, {"metrics", metrics}};
}

static void add_endpoints(httplib::Server & server) {
#include "http-server-integration.inc"
}

static json answer_of(const httplib::Result & result) {
    return result ? json{{"status", result->status}, {"body", json::parse(result->body)}} : json();
}

static json http_server_integration() {
    httplib::Server server;
    add_endpoints(server);
    const int       port = server.bind_to_any_port("127.0.0.1");
    std::thread     listening([&] { server.listen_after_bind(); });
    httplib::Client client("127.0.0.1", port);
    const json      saved   = {{"context_id", "mine"}, {"state", {{"n", 1}}}};
    const json      changes = {{"settings", {{"pool_timeout_ms", 1234}}}};
    json            answers;
    answers["metrics"] = answer_of(client.Get("/v1/atlas/metrics"));
    answers["config"]  = answer_of(client.Post("/v1/atlas/config", changes.dump(), "application/json"));
    answers["save"]    = answer_of(client.Post("/v1/atlas/memory/save", saved.dump(), "application/json"));
    server.stop();
    listening.join();
    return answers;
}

static json configuration(llama_model * model) {
#include "server-configuration.inc"

#include "context-pool-tuning.inc"

#include "memory-management.inc"

#include "metrics-optimization.inc"

#include "debug-mode.inc"
    atlas::AtlasServer server(config);
    server.initialize(model);
    return {{"threads", std::thread::hardware_concurrency()},
            {"pool", server.pool_size()},
            {"settings", server.handle_config_request()["data"]["settings"]}};
}

int main(int argc, char ** argv) {
    if (argc != 2) {
        return 2;
    }
    llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    llama_backend_init();
    llama_model * model = llama_model_load_from_file(argv[1], llama_model_default_params());
    if (model == nullptr) {
        return 1;
    }
    const json plain = {{"prompt", "Once upon a time"}, {"max_tokens", 8}, {"temperature", 0}, {"ignore_eos", true}};
    json       asked = plain;
    asked["atlas"]   = {{"session_id", "me"}};

    json all;
    all["advanced"]  = advanced_integration(model, plain);
    all["enhanced"]  = simple_integration(model, asked);
    all["endpoints"] = http_server_integration();
    atlas::shutdown_atlas();
    all["info"] = simple_integration(model, plain);
    atlas::shutdown_atlas();
    all["configuration"] = configuration(model);
    llama_model_free(model);
    std::puts(all.dump().c_str());
}
