#include "atlas-fetch.h"

#include "atlas-lineage.h"
#include "atlas-llama-server.h"
#include "atlas-memory-setup.h"
#include "atlas-prompt-tokens.h"
#include "atlas-request.hpp"
#include "atlas-runtime.hpp"
#include "atlas-server-state.h"
#include "atlas-slots.h"
#include "server-common.h"
#include "server-http.h"
#include "server-task.h"

#include <string>
#include <vector>

using atlas::MIN_GAIN_TOKENS;
using atlas::state_part;

static bool is_wanted(const server_http_req & req) {
    return req.atlas && atlas_memory_active() &&
           atlas_loaded_memory()->model.store.has_linked_tier(atlas_access_of(req).max_tier);
}

atlas::memory_access atlas_access_of(const server_http_req & req) {
    atlas::memory_access access;
    access.session_id        = req.atlas->session;
    access.strategy          = req.atlas->options().strategy;
    access.max_tier          = req.atlas->options().memory_layers.value_or(access.max_tier);
    access.seconds_per_token = atlas_active()->prefill.seconds_per_unit();
    return access;
}

// As find() of the same prompt, which looks at all but its last token. What drafts has state of its own.
static atlas::fetch_result fetch(const server_http_req & req, const std::string & lineage, const llama_token * tokens,
                                 size_t n_tokens) {
    auto &       loaded = *atlas_loaded_memory();
    auto &       memory = loaded.model;
    const auto & root   = *memory.root();
    const auto   get    = [&](const std::string & of, state_part part, size_t n) {
        auto access             = root.limit(atlas_access_of(req));
        access.rewind           = memory.layout(part).rewind();
        access.seconds_per_byte = memory.copying.seconds_per_byte();
        return memory.store.fetch(root.of(of), tokens, n, memory.layout(part).needs_checkpoint(), access,
                                  req.should_stop);
    };
    const auto fetched = get(lineage, state_part::target, n_tokens - 1);
    if (const auto & draft = loaded.draft; !draft.name.empty() && n_tokens - 1 > draft.n_behind) {
        get(lineage + draft.name, state_part::draft, n_tokens - 1 - draft.n_behind);
    }
    return fetched;
}

// Texts and tokens; of media it is not known here what they come to.
static std::vector<const json *> prompts_of(const json & prompt) {
    const bool is_one = prompt.is_string() || (prompt.is_array() && json_is_array_and_contains_numbers(prompt));
    if (is_one) {
        return {&prompt};
    }
    std::vector<const json *> all;
    for (size_t i = 0; prompt.is_array() && i < prompt.size(); i++) {
        if (prompt.at(i).is_string() || prompt.at(i).is_array()) {
            all.push_back(&prompt.at(i));
        }
    }
    return all;
}

void atlas_fetch_prompts(const server_http_req & req, const common_json & data) {
    constexpr size_t MAX_PROMPTS = 8; // of one request; those behind are fetched when they are looked up
    if (!is_wanted(req) || !data.is_object() || !data.contains("prompt") || data.contains("lora") ||
        !json_value(data, "cache_prompt", true)) {
        return;
    }
    const atlas::phase_timer timer(req.atlas.get(), atlas::request_phase::lookup);
    try {
        const auto lineage = atlas_lineage_of(req.atlas->tenant, atlas_state().adapters.now(), {});
        for (const json * prompt : prompts_of(data.at("prompt"))) {
            if (req.atlas->fetched.size() >= MAX_PROMPTS || req.should_stop()) {
                return;
            }
            const auto tokens = tokenize_mixed(atlas_state().vocab, *prompt, true, true);
            const auto size   = tokens.size();
            req.atlas->fetched.push_back(
                {size, size > MIN_GAIN_TOKENS ? fetch(req, lineage, tokens.data(), size) : atlas::fetch_result()});
        }
    } catch (const std::exception &) { // whoever reads the prompt next says what is wrong with it
    }
}

atlas::fetch_result atlas_fetch_for(const server_task & task, const server_http_req & req) {
    if (!is_wanted(req)) {
        return {};
    }
    auto & fetched = req.atlas->fetched;
    if (!fetched.empty() && fetched.front().n_tokens == task.tokens.size()) {
        const auto found = fetched.front().result;
        fetched.pop_front();
        return found;
    }
    const atlas_prompt_tokens tokens(task.tokens, *atlas_loaded_memory());
    return tokens.size() > MIN_GAIN_TOKENS ? fetch(req, task.memory->lineage, tokens.data(), tokens.size())
                                           : atlas::fetch_result();
}
