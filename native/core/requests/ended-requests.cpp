#include "atlas-ended-requests.hpp"

#include "atlas-abi.h"

#include "hash/hash.h"

#include <nlohmann/json.hpp>
#include <sys/random.h>

#include <algorithm>
#include <chrono>
#include <utility>

namespace atlas {

using json = nlohmann::ordered_json;

std::string request_record::to_json(bool with_names) const {
    const json times = {
        {"total", ms.total},
        {"overhead", ms.overhead},
        {"wait", ms.wait},
        {"queue", ms.queue},
        {"restore", ms.restore},
        {"prefill", ms.prefill},
        {"first_token", ms.first_token},
        {"decode", ms.decode},
    };
    json document = {
        {"number", number},
        {"request_id", request_id},
        {"route", route},
        {"outcome", outcome},
        {"atlas", has_atlas_object},
        {"tenant", tenant},
        {"session", session},
        {"traceparent", traceparent},
        {"ended", ended},
        {"streamed", is_streamed},
        {"ms", times},
        {"tokens",
         {{"prompt", tokens.prompt_tokens}, {"reused", tokens.reused_tokens}, {"answer", tokens.answer_tokens}}},
        {"memory", {{"result", memory_result}, {"layer", tier}, {"moved", moved}}},
        {"degraded", degraded},
    };
    if (with_names) {
        document["session_id"] = session_id;
    }
    return document.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string hash_of_session(const std::string & session) {
    return hash_sha256_hex(session.data(), session.size()).substr(0, 12);
}

bool is_traceparent(const std::string & text) {
    static const std::string FORM = "00-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx-xxxxxxxxxxxxxxxx-xx";
    if (text.size() != FORM.size()) {
        return false;
    }
    for (size_t i = 0; i < FORM.size(); i++) {
        const bool is_digit = (text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'f');
        if (FORM[i] == 'x' ? !is_digit : text[i] != FORM[i]) {
            return false;
        }
    }
    const auto is_zero = [&](size_t begin, size_t n) { return text.substr(begin, n) == std::string(n, '0'); };
    return !is_zero(3, 32) && !is_zero(36, 16);
}

std::string random_request_id() {
    uint64_t bits = 0;
    if (getrandom(&bits, sizeof(bits), 0) != (ssize_t) sizeof(bits)) {
        bits = (uint64_t) std::chrono::steady_clock::now().time_since_epoch().count();
    }
    char text[17];
    std::snprintf(text, sizeof(text), "%016llx", (unsigned long long) bits);
    return text;
}

uint64_t ended_requests::add(request_record record) {
    const std::lock_guard<std::mutex> lock(mutex);
    record.number = ++last;
    records.push_back(std::move(record));
    if (records.size() > MAX_KEPT) {
        records.pop_front();
    }
    return last;
}

std::string ended_requests::since_json(uint64_t since) const {
    std::vector<request_record> found;
    uint64_t                    newest = 0;
    {
        const std::lock_guard<std::mutex> lock(mutex);
        newest                = last;
        const uint64_t before = last - records.size(); // the number before the oldest
        const size_t   begin  = std::min<uint64_t>(std::max(since, before) - before, records.size());
        const size_t   end    = std::min(begin + ATLAS_MAX_REQUESTS, records.size());
        found.assign(records.begin() + (ptrdiff_t) begin, records.begin() + (ptrdiff_t) end);
    }
    std::string text = "{\"last\":" + std::to_string(newest) + ",\"requests\":[";
    for (size_t i = 0; i < found.size(); i++) {
        text += (i > 0 ? "," : "") + found[i].to_json(true);
    }
    return text + "]}";
}

} // namespace atlas
