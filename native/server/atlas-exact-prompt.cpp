#include "atlas-exact-prompt.h"

#include "atlas-exact-answers.hpp"
#include "atlas-request.hpp"
#include "atlas-runtime.hpp"
#include "atlas-server-state.h"
#include "common.h"
#include "server-common.h"
#include "server-http.h"
#include "server-task.h"

#include <utility>
#include <vector>

using atlas::prompt_part;

static std::string piece_of(llama_token token) {
    const llama_vocab * vocab = atlas_state().vocab;
    return token < 0 || token >= llama_vocab_n_tokens(vocab) ? "" : common_token_to_piece(vocab, token, true);
}

void atlas_set_answered(atlas::request & request, const std::string & answers) {
    request.answered = atlas::exact_answers_of(answers);
    for (const auto & each : request.answered) {
        // a template writes calls in its own words; those of the model are known after a restart, too
        std::string text;
        for (size_t i = 0; !each.arguments.empty() && i < each.tokens.size(); i++) {
            text += piece_of(each.tokens[i]);
        }
        if (!text.empty()) {
            atlas_active()->written_calls.keep(request.tenant, each.behind, std::move(text), each.arguments);
        }
    }
}

// The part's own tokens. Returns false where the text would be another: some tokenizers put a blank before it.
static bool add_tokens(json & to, const prompt_part & part) {
    auto tokens = part.tokens;
    if (tokens.empty()) {
        tokens                  = common_tokenize(atlas_state().vocab, part.text, false, true);
        const std::string first = tokens.empty() ? "" : piece_of(tokens[0]);
        if (first.empty() || part.text.compare(0, first.size(), first) != 0) {
            return false;
        }
    }
    for (const llama_token token : tokens) {
        to.push_back(token);
    }
    return true;
}

void atlas_put_exact_prompt(const server_http_req & req, common_json & data) {
    auto & request   = *req.atlas;
    bool   is_wanted = request.keeps_answer || !request.answered.empty();
    if (!is_wanted || !data.is_object() || !data.contains("prompt") || !data.at("prompt").is_string()) {
        return;
    }
    const atlas::phase_timer timer(&request, atlas::request_phase::history);
    const std::string        prompt = data.at("prompt").get<std::string>();
    if (prompt.find(get_media_marker()) != std::string::npos) {
        return; // its images or sound are not among the parts of a mixed prompt
    }
    if (request.keeps_answer) {
        request.ends_at = atlas::end_of(prompt, prompt.size());
    }
    const auto parts = atlas::put_exact_answers(prompt, request.answered, piece_of);
    if (parts.size() < 2) {
        return;
    }
    json mixed = json::array({parts[0].text}); // which upstream cuts, and puts in front what the model wants there
    for (size_t i = 1; i < parts.size(); i++) {
        if (!add_tokens(mixed, parts[i])) {
            return;
        }
    }
    data["prompt"] = std::move(mixed);
}

void atlas_note_exact_answer(atlas::request & request, const server_task_result_cmpl_final & last) {
    for (size_t i = 0; request.keeps_answer && i < last.oaicompat_msg.tool_calls.size(); i++) {
        request.called_with.push_back(last.oaicompat_msg.tool_calls[i].arguments);
    }
}

std::string atlas_exact_answer_of(const atlas::request & request) {
    auto tokens = request.answer_tokens();
    if (!request.ends_at || tokens.empty() || tokens.size() > atlas::MAX_EXACT_TOKENS) {
        return "null";
    }
    return atlas::to_json({*request.ends_at, std::move(tokens), request.called_with});
}

void atlas_leave_answer(const server_task & task, const server_prompt & prompt) {
    if (!task.memory || !task.memory->wants_answer) {
        return;
    }
    const size_t n_prompt = task.tokens.size();
    // where the context was shifted, the slot does not hold the prompt as it was sent
    if (prompt.tokens.get_common_prefix(task.tokens) != n_prompt) {
        return;
    }
    for (size_t i = n_prompt; i < prompt.tokens.size(); i++) {
        task.memory->answer_tokens.push_back(prompt.tokens[i]);
    }
}
