// Plugins of a program that ask the model from inside.
#include "api-test.hpp"

#include <fstream>
#include <thread>

using namespace api;

static const char * const PLUGIN = R"(
from atlas_plugin import AskError, hookimpl


@hookimpl
def startup(host):
    global server
    server = host


@hookimpl
def register_routes(routes):
    @routes.post("/v1/atlas/x/complete")
    def complete(request):
        try:
            return server.ask("/completion", request.json())
        except AskError as error:
            return {"refused": error.answered}
)";

static json ask(atlas::AtlasServer & on, const json & body) {
    atlas::AtlasRequest request;
    request.path = "/v1/atlas/x/complete";
    request.body = body.dump();
    return json::parse(on.handle(request).body, nullptr, false);
}

static bool is_busy(atlas::AtlasServer & on) {
    const json slots = get(on, "/slots");
    for (const auto & slot : slots) {
        if (slot["is_processing"] == true) {
            return true;
        }
    }
    return false;
}

CASE_OF_PYTHON(plugins_ask_the_model_until_the_server_ends) {
    std::ofstream(dir + "/asking.py") << PLUGIN;
    auto config    = config_of(dir);
    config.plugins = {dir + "/asking.py"};
    server on(config);

    const json          once = {{"prompt", "Once"}, {"n_predict", 4}, {"temperature", 0}};
    atlas::AtlasRequest outside;
    outside.path = "/completion";
    outside.body = once.dump();
    CHECK(ask(*on, once)["content"] == json::parse(on->handle(outside).body)["content"]);

    json        refused;
    std::thread asking([&, with = on.atlas.get()] {
        refused = ask(*with, {{"prompt", "Once"}, {"n_predict", -1}, {"ignore_eos", true}});
    });
    while (!is_busy(*on)) {
        std::this_thread::yield();
    }
    on.atlas.reset();
    asking.join();
    CHECK(refused["refused"] == 503);
}
