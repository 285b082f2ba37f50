#include "upstream-log.hpp"

#include "atlas-in-effect.hpp"
#include "ggml-impl.h"
#include "llama.h"
#include "log.h"

namespace atlas {

int upstream_verbosity(const AtlasServerConfig & config) {
    switch (least_logged(config)) {
        case LogLevel::ERROR: return LOG_LEVEL_ERROR;
        case LogLevel::WARN:  return LOG_LEVEL_WARN;
        default:              return LOG_LEVEL_INFO;
    }
}

void take_upstream_log() {
    ggml_log_callback present = nullptr;
    void *            data    = nullptr;
    llama_log_get(&present, &data);
    if (present == ggml_log_callback_default) {
        llama_log_set(common_log_default_callback, nullptr);
    }
}

} // namespace atlas
