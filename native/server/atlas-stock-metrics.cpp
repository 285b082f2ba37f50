// GET /metrics: llama-server's own metrics, and ours behind them.
#include "atlas-asleep.h"
#include "atlas-facts.h"
#include "atlas-llama-server.h"
#include "atlas-request-admission.hpp"
#include "atlas-runtime.hpp"
#include "server-http.h"

#include <memory>
#include <mutex>
#include <string>
#include <utility>

namespace {

// Completions that ended since the start.
uint64_t count_requests(atlas::runtime & runtime) {
    const auto & values = runtime.gate().recorded().values;
    uint64_t     count  = 0;
    for (size_t at = atlas::metrics::REQUESTS; at < atlas::metrics::CACHE_HITS; at++) {
        count += values.count(at);
    }
    return count;
}

std::string present_metrics(atlas::runtime & runtime) {
    atlas::http_request request;
    request.method    = "GET";
    request.path      = ATLAS_ROUTE_METRICS;
    auto       answer = runtime.handle(request);
    const bool is_on  = answer.status == 200;
    return is_on ? std::move(answer.body) : "";
}

// Stock answers for a sleeping server what was so before it slept. So do we, unless nobody has yet been told of the last
// completions.
class metrics_text {
  public:
    metrics_text(atlas::runtime & runtime, const atlas_sleep & sleep) : runtime(runtime), sleep(sleep) {}

    std::string get() {
        const uint64_t n_now = count_requests(runtime);
        if (sleep.is_now()) {
            const std::lock_guard<std::mutex> held(mutex);
            if (is_told && n_requests == n_now) {
                return text;
            }
        }
        std::string present = present_metrics(runtime);

        const std::lock_guard<std::mutex> held(mutex);
        text       = present;
        n_requests = n_now;
        is_told    = true;
        return present;
    }

  private:
    atlas::runtime &    runtime;
    const atlas_sleep & sleep;

    std::mutex  mutex;
    std::string text; // that was answered last
    uint64_t    n_requests = 0;
    bool        is_told    = false;
};

} // namespace

atlas_handler atlas_with_metrics(atlas::runtime & runtime, const atlas_sleep & sleep, const atlas_handler & stock) {
    return [stock, ours = std::make_shared<metrics_text>(runtime, sleep)](const server_http_req & req) {
        auto response = stock(req);
        if (response->status == 200) {
            response->data += ours->get();
        }
        return response;
    };
}
