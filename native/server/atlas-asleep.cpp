// A server whose model is unloaded for want of requests, and GET /slots of it.
#include "atlas-asleep.h"

#include "atlas-server-state.h"
#include "server-common.h"
#include "server-http.h"
#include "server-task.h"

#include <algorithm>
#include <deque>
#include <functional>

void atlas_sleep::set(bool is_so, const common_json & shown) {
    const std::lock_guard<std::mutex> held(mutex);
    slots     = safe_json_to_str(shown);
    is_asleep = is_so;
}

std::unique_ptr<server_http_res> atlas_sleep::answer() const {
    const std::lock_guard<std::mutex> held(mutex);

    auto response    = std::make_unique<server_http_res>();
    response->status = 200;
    response->data   = slots;
    return response;
}

bool atlas_wakes(const std::deque<server_task> & tasks) {
    return std::any_of(tasks.begin(), tasks.end(), [](const server_task & task) {
        return task.type != SERVER_TASK_TYPE_METRICS && task.type != SERVER_TASK_TYPE_SLOT_GET &&
               task.type != SERVER_TASK_TYPE_CANCEL;
    });
}

void atlas_set_asleep(bool is_so, const common_json & slots) {
    atlas_state().sleep.set(is_so, slots);
    if (is_so && atlas_memory_active()) {
        atlas_loaded_memory()->model.stop_proving(); // the model is unloaded next
    }
}

atlas_handler atlas_with_slots_asleep(const atlas_sleep & sleep, const atlas_handler & stock) {
    return [&sleep, stock](const server_http_req & req) {
        if (sleep.is_now()) {
            return sleep.answer();
        }
        // a loop that has fallen asleep meanwhile does not come to what is asked of it
        bool                        has_slept   = false;
        const std::function<bool()> should_stop = [&] { return (has_slept |= sleep.is_now()) || req.should_stop(); };
        auto response = stock({req.params, req.headers, req.path, req.query_string, req.body, {}, should_stop});
        return has_slept ? sleep.answer() : std::move(response);
    };
}
