#include "atlas-integration.hpp"

#include <memory>
#include <stdexcept>

namespace atlas {

// The one that init_atlas() makes: the functions of this file are given no object.
static std::unique_ptr<AtlasServer> & instance() {
    static auto & only = *new std::unique_ptr<AtlasServer>;
    return only;
}

void init_atlas(llama_model * model) { init_atlas(model, AtlasServerConfig::from_environment()); }

void init_atlas(llama_model * model, const AtlasServerConfig & config, const AtlasModelOptions & options) {
    if (instance()) {
        throw std::runtime_error("init_atlas() was called before: call shutdown_atlas() first");
    }
    auto made = std::make_unique<AtlasServer>(config);
    made->initialize(model, options);
    instance() = std::move(made);
}

void shutdown_atlas() { instance().reset(); }

AtlasServer & atlas_instance() {
    if (!instance()) {
        throw std::runtime_error("init_atlas() was not called");
    }
    return *instance();
}

bool is_atlas_request(const json & request) { return request.is_object() && request.contains("atlas"); }

json process_with_atlas(const json & request) { return atlas_instance().handle_completion_request(request); }

// What stands there in the answer, which may be an error; else null.
static json find(const json & in, const json::json_pointer & where) {
    return in.contains(where) ? in.at(where) : json();
}

json enhance_response_with_atlas(json response, bool with_metrics) {
    if (!response.is_object() || response.contains("error")) {
        return response;
    }
    if (!response.contains("atlas")) {
        const json status = find(atlas_instance().handle_status_request(), json::json_pointer("/status"));
        response["atlas"] = {{"status", status.is_null() ? json("unknown") : status}};
    }
    if (with_metrics && response["atlas"].is_object()) {
        response["atlas"]["metrics"] =
            find(atlas_instance().handle_metrics_request(), json::json_pointer("/data/current"));
    }
    return response;
}

json get_atlas_info() {
    json info = {{"version", ATLAS_VERSION}, {"initialized", instance() != nullptr}};
    if (instance()) {
        info["status"] = instance()->handle_status_request();
        info["config"] = instance()->handle_config_request();
    }
    return info;
}

} // namespace atlas
