// What llama-server and a program that has its engine do alike before a model is loaded.
#include "atlas-build.h"
#include "atlas-log.hpp"
#include "atlas-server-state.h"
#include "build-info.h"
#include "common.h"
#include "log.h"

#include <dlfcn.h>

#include <filesystem>
#include <map>
#include <utility>

static void write_log(atlas::LogLevel level, atlas::LogFormat format, const std::string & text) {
    if (format == atlas::LogFormat::JSON) {
        common_log_add(common_log_main(), GGML_LOG_LEVEL_CONT, "%s\n", text.c_str()); // a line without prefix
        return;
    }
    static const std::map<atlas::LogLevel, ggml_log_level> LEVELS = {
        {atlas::LogLevel::DEBUG, GGML_LOG_LEVEL_INFO}, // upstream drops debug lines unless -lv asks for them
        {atlas::LogLevel::INFO, GGML_LOG_LEVEL_INFO},
        {atlas::LogLevel::WARN, GGML_LOG_LEVEL_WARN},
        {atlas::LogLevel::ERROR, GGML_LOG_LEVEL_ERROR},
    };
    const char * mark = level == atlas::LogLevel::DEBUG ? "debug: " : "";
    // not LOG_INF and its like: --atlas-log-level decides, not -lv
    common_log_add(common_log_main(), LEVELS.at(level), "[ATLAS] %s%s\n", mark, text.c_str());
}

// The directory of the library that holds this code: the Python module is built beside it.
static std::string library_directory() {
    Dl_info info;
    if (dladdr(reinterpret_cast<void *>(&library_directory), &info) == 0 || info.dli_fname == nullptr) {
        return ".";
    }
    return std::filesystem::absolute(info.dli_fname).parent_path().string();
}

// An installed library has its environment beside it, if somebody made one there; the build tree's may be gone.
static atlas::python_options python_of_this_build() {
    const std::string module = ATLAS_PYTHON_MODULE;
    if (module.empty()) {
        return {};
    }
    const std::string directory = library_directory();
    const std::string beside    = directory + "/atlas-python";
    std::error_code   ignored;
    return {directory + "/" + module, std::filesystem::exists(beside, ignored) ? beside : ATLAS_PYTHON_ENVIRONMENT};
}

// The budget of stock's prompt cache in bytes; it has none (unlimited) with -1.
static uint64_t cache_ram_bytes(const common_params & params) {
    return params.cache_ram_mib < 0 ? UINT64_MAX : (uint64_t) params.cache_ram_mib << 20;
}

void atlas_use_llama_log() { atlas::set_log_sink(write_log); }

bool atlas_start_runtime(atlas_server_state & state, const common_params & params,
                         const atlas::tenant_options & tenants, bool has_model,
                         std::shared_ptr<atlas::AtlasMemoryPolicy> policy) {
    if (!state.settings.values()->enabled) {
        return true;
    }
    const auto & sampling   = params.sampling;
    state.response_defaults = {sampling.temp, sampling.top_p, sampling.penalty_present, sampling.penalty_freq};
    state.runtime = std::make_unique<atlas::runtime>(state.settings, llama_build_info(), python_of_this_build());
    state.runtime->set_memory_policy(std::move(policy));
    return state.runtime->start(has_model, cache_ram_bytes(params), tenants);
}
