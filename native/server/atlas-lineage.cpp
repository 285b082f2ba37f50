#include "atlas-lineage.h"

#include "atlas-llama-server.h"
#include "atlas-runtime.hpp"
#include "atlas-server-state.h"
#include "atlas-slots.h"
#include "common.h"
#include "llama.h"
#include "server-common.h"
#include "server-task.h"

#include <algorithm>
#include <cstdio>
#include <utility>

void atlas_adapters::set(std::vector<atlas_adapter> fresh) {
    const std::lock_guard<std::mutex> held(mutex);
    all = std::move(fresh);
}

static void set_all(std::vector<atlas_adapter> & adapters, const std::map<int, float> & scales) {
    for (size_t i = 0; i < adapters.size(); i++) {
        const auto it     = scales.find((int) i);
        adapters[i].scale = it == scales.end() ? 0 : it->second;
    }
}

void atlas_adapters::set_scales(const std::map<int, float> & scales) {
    const std::lock_guard<std::mutex> held(mutex);
    set_all(all, scales);
}

std::vector<atlas_adapter> atlas_adapters::now() const {
    const std::lock_guard<std::mutex> held(mutex);
    return all;
}

std::vector<atlas_adapter> atlas_adapters_of(const std::vector<common_adapter_lora_info> & loaded) {
    std::vector<atlas_adapter> all;
    for (const auto & each : loaded) {
        all.push_back({each.scale, llama_adapter_get_alora_n_invocation_tokens(each.ptr) > 0});
    }
    return all;
}

static void set_scales(std::vector<atlas_adapter> & adapters, const std::map<int, float> & scales) {
    if (!scales.empty()) {
        set_all(adapters, scales);
    }
}

// Whether what is in force leaves a prompt as it is up to the tokens where it begins.
static bool begins_later(const std::vector<atlas_adapter> & adapters) {
    const auto is_plain = [](const atlas_adapter & each) { return each.scale != 0 && !each.is_alora; };
    const auto is_later = [](const atlas_adapter & each) { return each.scale != 0 && each.is_alora; };
    return std::none_of(adapters.begin(), adapters.end(), is_plain) &&
           std::any_of(adapters.begin(), adapters.end(), is_later);
}

std::string atlas_lineage_of(const std::string & tenant, std::vector<atlas_adapter> adapters,
                             const std::map<int, float> & scales) {
    set_scales(adapters, scales);
    std::string lineage = tenant;
    // those that begin in the middle of a prompt leave what is before as it is, and upstream reuses no more than that
    if (!begins_later(adapters)) {
        for (size_t i = 0; i < adapters.size(); i++) {
            char text[64];
            std::snprintf(text, sizeof(text), " %zu:%a", i, (double) adapters[i].scale);
            lineage += adapters[i].scale == 0 ? "" : text;
        }
    }
    return lineage;
}

void atlas_set_lineage(server_task & task, const std::vector<common_adapter_lora_info> & loaded) {
    if (!atlas_active()) {
        return;
    }
    auto adapters = atlas_adapters_of(loaded);
    if (!adapters.empty()) {
        atlas_state().adapters.set(adapters);
    }
    task.tokens.lineage = atlas_lineage_of(task.memory ? task.memory->tenant : "", adapters, task.params.lora);
    if (task.memory && task.memory->lineage != task.tokens.lineage) {
        task.memory->match = {}; // the scales were changed after it was looked up
        task.memory->draft = {};
    }
}

bool atlas_begins_later(const server_task & task) {
    auto adapters = atlas_state().adapters.now();
    set_scales(adapters, task.params.lora);
    return begins_later(adapters);
}

void atlas_apply_adapters(std::vector<common_adapter_lora_info> & to, const server_task & task,
                          const std::vector<common_adapter_lora_info> & loaded) {
    if (!atlas_active() || task.params.lora.empty()) {
        return;
    }
    auto adapters = atlas_adapters_of(loaded);
    set_scales(adapters, task.params.lora);
    to = loaded;
    for (size_t i = 0; i < to.size(); i++) {
        to[i].scale = adapters[i].scale;
    }
}
