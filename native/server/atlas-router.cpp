#include "atlas-router.h"

#include "atlas-in-effect.hpp"
#include "atlas-settings.hpp"
#include "common.h"
#include "hash/hash.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

// Set by upstream's router for its children.
static const char * const CHILD_VARIABLE = "LLAMA_SERVER_ROUTER_PORT";

// Set by ours, as the children get none of the router's keys.
static const char * const TENANTS_VARIABLE = "LLAMA_SERVER_ATLAS_TENANTS";

static const char * const ADMIN_VARIABLE = "ATLAS_ADMIN_KEY";

static bool is_child() { return std::getenv(CHILD_VARIABLE) != nullptr; }

bool atlas_is_router(const common_params & params) {
    const bool has_model =
        !params.model.path.empty() || !params.model.hf_repo.empty() || !params.model.docker_repo.empty();
    if (!has_model && is_child()) {
        const std::string name = params.model_alias.empty() ? "" : " '" + *params.model_alias.begin() + "'";
        throw std::invalid_argument("the preset" + name +
                                    " names no model: give it one of model, hf-repo and docker-repo");
    }
    return !has_model;
}

atlas::tenant_options atlas_settle_tenants(common_params & params, const atlas::settings & settings, bool is_router) {
    const auto            config = settings.values();
    atlas::tenant_options who;
    who.admin_key     = config->admin_key;
    who.has_keys      = !params.api_keys.empty();
    who.all_are_admin = params.api_keys.size() <= 1;
    who.is_separated  = params.api_keys.size() > 1 && !config->share_between_keys;
    who.directory     = atlas::saving_off(*config).empty() ? config->memory_save_path : "";
    if (is_child()) {
        const char * told = std::getenv(TENANTS_VARIABLE);
        who.is_separated  = told != nullptr && std::strcmp(told, "separated") == 0;
        who.has_keys      = told != nullptr;
        who.all_are_admin = told == nullptr;
        return who;
    }
    if (is_router) {
        if (!config->admin_key.empty() && std::getenv(ADMIN_VARIABLE) == nullptr) {
            throw std::invalid_argument(
                "a router shows the command lines of its children, and would show the admin key: "
                "give it in ATLAS_ADMIN_KEY instead");
        }
        if (params.api_keys.size() > 1) {
            setenv(TENANTS_VARIABLE, who.is_separated ? "separated" : "shared", 1);
        } else {
            unsetenv(TENANTS_VARIABLE);
        }
    }
    if (!config->admin_key.empty() && !params.api_keys.empty()) {
        params.api_keys.push_back(config->admin_key);
    }
    return who;
}

// A name that any file system takes, and that no two models share.
static std::string directory_name(const std::string & model) {
    std::string name = model.substr(0, 100);
    for (char & c : name) {
        const bool is_plain =
            (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
        c = is_plain ? c : '_';
    }
    return name + "-" + hash_sha256_hex(model.data(), model.size()).substr(0, 8);
}

void atlas_settle_place(const common_params & params, atlas::settings & settings) {
    const std::string path = settings.values()->memory_save_path;
    if (!is_child() || path.empty() || params.model_alias.empty()) {
        return;
    }
    const auto & table = atlas::settings::table();
    const auto   place = std::find_if(table.begin(), table.end(), [](const atlas::setting_info & info) {
        return std::strcmp(info.name, "memory_save_path") == 0;
    });
    settings.set(place - table.begin(), path + "/models/" + directory_name(*params.model_alias.begin()),
                 atlas::setting_origin::flag);
}
