// A server whose model is unloaded for want of requests, and GET /slots of it.
#include "atlas-asleep.h"

#include "server-common.h"
#include "server-http.h"

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

static std::atomic<bool> is_asleep{false};

static std::mutex  slots_mutex;
static std::string slots_asleep; // guarded by slots_mutex

bool atlas_is_asleep() { return is_asleep; }

void atlas_set_asleep(bool is_so, const common_json & slots) {
    const std::lock_guard<std::mutex> held(slots_mutex);
    slots_asleep = safe_json_to_str(slots);
    is_asleep    = is_so;
}

static std::unique_ptr<server_http_res> answer_asleep() {
    const std::lock_guard<std::mutex> held(slots_mutex);

    auto response    = std::make_unique<server_http_res>();
    response->status = 200;
    response->data   = slots_asleep;
    return response;
}

atlas_handler atlas_with_slots_asleep(const atlas_handler & stock) {
    return [stock](const server_http_req & req) {
        if (is_asleep) {
            return answer_asleep();
        }
        // a loop that has fallen asleep meanwhile does not come to what is asked of it
        bool                        has_slept   = false;
        const std::function<bool()> should_stop = [&] { return (has_slept |= is_asleep) || req.should_stop(); };
        auto response = stock({req.params, req.headers, req.path, req.query_string, req.body, {}, should_stop});
        return has_slept ? answer_asleep() : std::move(response);
    };
}
