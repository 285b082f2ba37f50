// What the KV of tokens depends on besides the tokens: whose they are, and the adapters they were computed under.
#include "atlas-llama-server.h"
#include "atlas-runtime.hpp"
#include "atlas-slots.h"
#include "common.h"
#include "server-common.h"
#include "server-task.h"

#include <cstdio>
#include <map>

using adapters = std::vector<common_adapter_lora_info>;

// scales: of the adapters that a request names, all others are 0 then; empty: as the server has set them.
static std::string lineage_of(const std::string & tenant, adapters loaded, const std::map<int, float> & scales) {
    for (size_t i = 0; i < loaded.size() && !scales.empty(); i++) {
        const auto it   = scales.find((int) i);
        loaded[i].scale = it == scales.end() ? 0 : it->second;
    }
    std::string lineage = tenant;
    // those that begin in the middle of a prompt leave what is before as it is, and upstream reuses no more than that
    if (!lora_all_alora(loaded)) {
        for (size_t i = 0; i < loaded.size(); i++) {
            char text[64];
            std::snprintf(text, sizeof(text), " %zu:%a", i, (double) loaded[i].scale);
            lineage += loaded[i].scale == 0 ? "" : text;
        }
    }
    return lineage;
}

void atlas_set_lineage(server_task & task, const adapters & loaded) {
    if (atlas_active()) {
        task.tokens.lineage = lineage_of(task.memory ? task.memory->tenant : "", loaded, task.params.lora);
    }
}

void atlas_adopt(server_prompt & prompt, const adapters & loaded) {
    if (atlas_active()) {
        prompt.tokens.lineage = lineage_of("", loaded, {});
    }
}
