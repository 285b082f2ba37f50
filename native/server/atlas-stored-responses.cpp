#include "atlas-stored-responses.h"

#include "atlas-background.h"
#include "atlas-error.hpp"
#include "atlas-llama-server.h"
#include "atlas-request.hpp"
#include "atlas-response-draft.h"
#include "atlas-runtime.hpp"
#include "atlas-server-state.h"
#include "server-common.h"
#include "server-http.h"

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

void atlas_begin_response(const server_http_req & req, common_json & body) {
    if (!body.is_object()) {
        return; // upstream says what is wrong with it
    }
    auto & request = *req.atlas;
    auto   draft   = std::make_shared<atlas::response_draft>(body, atlas_state().response_defaults);
    draft->set_stored(is_to_be_kept(request, body));
    if (!draft->previous().empty()) {
        const atlas::phase_timer timer(&request, atlas::request_phase::history);
        atlas_put_earlier_items(body, *draft, request.tenant);
    }
    atlas::response_draft::translate(body);
    request.response = std::move(draft);
    if (request.response->is_in_background()) {
        atlas_accept_in_background(req, body);
    }
}

void atlas_put_earlier_items(common_json & body, const atlas::response_draft & draft, const std::string & tenant) {
    const json items = json::parse(atlas_active()->items_of_response(tenant, draft.previous()));
    put_before(body, items, draft.input_items());
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
    try {
        atlas_active()->keep_response(request.tenant, safe_json_to_str(request.response->input_items()),
                                      safe_json_to_str(kept));
    } catch (const atlas::error & error) {
        response["store"] = false;
        request.degrade(std::string("the response was not kept: ") + error.what());
        if (request.has_atlas_object()) {
            response["atlas"] = json::parse(request.answer());
        }
    }
}

void atlas_keep_response(atlas::request & request, common_json & answer) {
    if (!request.response) {
        return;
    }
    request.response->number_events(answer);
    json * final = atlas::response_draft::final_in(answer);
    if (final != nullptr && json_value(*final, "store", false)) {
        keep(request, *final);
    }
}
