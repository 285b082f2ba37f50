#include "atlas-stored-responses.h"

#include "atlas-background.h"
#include "atlas-error.hpp"
#include "atlas-exact-prompt.h"
#include "atlas-llama-server.h"
#include "atlas-request.hpp"
#include "atlas-response-draft.h"
#include "atlas-runtime.hpp"
#include "atlas-server-state.h"
#include "atlas-tenant.hpp"
#include "server-common.h"
#include "server-http.h"

#include <string>
#include <utility>

static bool is_to_be_kept(const atlas::request & request, const json & body) {
    return json_value(body, "store", true) && !request.is_plugins && atlas_active()->keeps_responses();
}

static void put_before(json & body, const json & earlier, const json & input) {
    json joined = earlier;
    for (size_t i = 0; i < input.size(); i++) {
        joined.push_back(input.at(i));
    }
    body["input"] = joined;
}

static void go_on_from_conversation(atlas::request & request, atlas::response_draft & draft) {
    const atlas::phase_timer timer(&request, atlas::request_phase::history);
    const auto known = atlas_active()->recorded_conversation(request.session, safe_json_to_str(draft.references()));
    draft.set_earlier(json::parse(known.messages));
    draft.put_referenced(json::parse(known.referenced));
    request.keeps_answer = true; // with the conversation, also where the response is not
    atlas_set_answered(request, known.answers);
    if (!known.degraded.empty()) {
        request.degrade(known.degraded);
    }
}

void atlas_begin_response(const server_http_req & req, common_json & body) {
    if (!body.is_object()) {
        return; // upstream says what is wrong with it
    }
    auto & request       = *req.atlas;
    auto   draft         = std::make_shared<atlas::response_draft>(body, atlas_state().response_defaults);
    request.keeps_answer = is_to_be_kept(request, body);
    draft->set_stored(request.keeps_answer);
    std::string first = draft->id;
    if (draft->is_of_conversation()) {
        atlas_active()->gate().lock_session(request, req.should_stop);
        go_on_from_conversation(request, *draft);
        body["input"] = draft->input_items();
    } else if (!draft->previous().empty()) {
        const atlas::phase_timer timer(&request, atlas::request_phase::history);
        const auto               known = atlas_put_earlier_items(body, *draft, request.tenant);
        atlas_set_answered(request, known.answers);
        first = known.first;
    } else if (!draft->references().empty()) {
        throw atlas::validation_error("input", "item_reference names an item of what the request goes on from: give "
                                               "'conversation' or 'previous_response_id'");
    }
    if (request.keeps_answer && request.session.empty()) {
        request.session =
            atlas::tenants::qualified(request.tenant, first); // so that its KV stays, and goes, with what was said
    }
    atlas::response_draft::translate(body);
    request.response = std::move(draft);
    if (request.response->is_in_background()) {
        atlas_accept_in_background(req, body);
    }
}

atlas::runtime::response_items atlas_put_earlier_items(common_json & body, atlas::response_draft & draft,
                                                       const std::string & tenant) {
    auto known = atlas_active()->items_of_response(tenant, draft.previous(), safe_json_to_str(draft.references()));
    draft.put_referenced(json::parse(known.referenced));
    put_before(body, json::parse(known.items), draft.input_items());
    return known;
}

void atlas_complete_response(atlas::request & request, common_json & answer) {
    if (!request.response) {
        return;
    }
    if (answer.is_array()) {
        request.response->complete_events(answer);
    } else if (answer.is_object()) {
        request.response->complete(answer);
    }
}

static void keep(atlas::request & request, json & response) {
    const atlas::phase_timer timer(&request, atlas::request_phase::history);

    json kept = response;
    kept.erase("atlas"); // it is of the request, which has ended when somebody asks for the response
    if (request.background) {
        atlas_keep_in_background(request, kept);
        return;
    }
    std::string problem;
    try {
        const std::string session = request.response->is_of_conversation() ? request.session : "";
        problem =
            atlas_active()->keep_response(request.tenant, session, safe_json_to_str(request.response->input_items()),
                                          safe_json_to_str(kept), atlas_exact_answer_of(request));
    } catch (const atlas::error & error) {
        response["store"] = false;
        problem           = std::string("the response was not kept: ") + error.what();
    }
    if (problem.empty()) {
        return;
    }
    request.degrade(problem);
    if (request.has_atlas_object()) {
        response["atlas"] = json::parse(request.answer());
    }
}

void atlas_keep_response(atlas::request & request, common_json & answer) {
    if (!request.response) {
        return;
    }
    request.response->number_events(answer);
    json * final = atlas::response_draft::final_in(answer);
    if (final != nullptr && (json_value(*final, "store", false) || request.response->is_of_conversation())) {
        keep(request, *final);
    }
}
