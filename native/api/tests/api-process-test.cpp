// The process's one server.
#include "api-test.hpp"
#include "atlas-integration.hpp"

#include <stdexcept>

using namespace api;

CASE(the_process_has_one_server_at_a_time) {
    atlas::shutdown_atlas(); // there is none
    CHECK(contains(thrown_by<std::runtime_error>([] { atlas::atlas_instance(); }), "init_atlas"));
    CHECK(contains(thrown_by<std::runtime_error>([] { atlas::process_with_atlas(says("x")); }), "init_atlas"));
    CHECK(atlas::get_atlas_info()["initialized"] == false);

    const auto model = load_model();
    CHECK(contains(thrown_by<std::invalid_argument>([&] { atlas::init_atlas(nullptr, config_of(dir)); }), "model"));
    for (int i = 0; i < 2; i++) {
        atlas::init_atlas(model.get(), config_of(dir));
        CHECK(
            contains(thrown_by<std::runtime_error>([&] { atlas::init_atlas(model.get(), config_of(dir)); }), "before"));
        CHECK(text_of(atlas::process_with_atlas(says("x"))) == "x");
        const json info = atlas::get_atlas_info();
        CHECK(info["initialized"] == true);
        CHECK(info["version"].is_string());
        CHECK(info["status"].contains("status"));
        CHECK(contains(info["config"].dump(), HAS_PYTHON ? "max_sessions" : "ATLAS_PYTHON=OFF"));
        atlas::shutdown_atlas();
        atlas::shutdown_atlas();
    }
}

CASE(an_answer_gets_what_it_lacks) {
    CHECK(atlas::is_atlas_request({{"atlas", json::object()}}));
    CHECK(!atlas::is_atlas_request({{"prompt", "x"}}));
    CHECK(!atlas::is_atlas_request(json::array({"atlas"})));

    const json problem = {{"error", {{"code", 400}}}};
    CHECK(atlas::enhance_response_with_atlas(problem, true) == problem);
    CHECK(atlas::enhance_response_with_atlas("text", true) == "text");

    const auto model  = load_model();
    auto       config = config_of(dir);
    for (const bool has_metrics : {true, false}) {
        config.enable_metrics_collection = has_metrics;
        atlas::init_atlas(model.get(), config);
        const json answer = atlas::enhance_response_with_atlas(atlas::process_with_atlas(says("x")), true);
        CHECK(answer["atlas"]["status"].is_string());
        CHECK(answer["atlas"]["metrics"].is_object() == (has_metrics && HAS_PYTHON));
        CHECK(atlas::enhance_response_with_atlas({{"atlas", "text"}}, true)["atlas"] == "text");
        atlas::shutdown_atlas();
    }
}
