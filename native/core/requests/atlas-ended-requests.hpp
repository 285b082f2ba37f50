// The records of completion requests that ended, for the log, GET /v1/atlas/requests, and traces. Touches its own lock
// only; HTTP threads add records and read them.
#pragma once

#include "atlas-metrics.hpp"

#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <vector>

namespace atlas {

// One request that ended. Where it had several sequences, times and memory are those of the first.
struct request_record : metered_request {
    uint64_t    number = 0;  // from 1, in the order in which requests ended
    std::string request_id;  // the client's X-Request-Id, else 16 hexadecimal digits
    bool        has_atlas_object = false; // the request had an `atlas` object
    std::string tenant;           // 16 hexadecimal digits; empty: none
    std::string session;          // hash_of_session(); empty: none
    std::string session_id;       // the session's name, TENANT/ID where there are tenants; no log has it
    std::string traceparent;      // W3C Trace Context; empty: none came, or one that is not well formed
    double      ended = 0; // seconds since 1970
    std::string memory_result; // as in atlas_restores_total; empty: the memory was not asked
    int         tier = 0;     // that was restored from; 0: none
    std::string moved;        // what differs early from what the memory has, as moved_prompt says it; empty: nothing
    std::string degraded;      // why something could not be had; empty: all was

    // A JSON object; ATLAS_QUERY_REQUESTS in atlas-abi.h lists its members. session_id is there with_names only.
    std::string to_json(bool with_names = false) const;
};

// Twelve hexadecimal digits that stand for a session where its name is not to be shown.
std::string hash_of_session(const std::string & session);

// Whether text is a traceparent header of W3C Trace Context, version 00.
bool is_traceparent(const std::string & text);

// A new request id.
std::string random_request_id();

// The newest 1,024. Any thread.
class ended_requests {
  public:
    // Numbers the record.
    uint64_t add(request_record record);

    // {"last": number of the newest, "requests": [...]}: those after `since`, oldest first, at most ATLAS_MAX_REQUESTS.
    std::string since_json(uint64_t since) const;

  private:
    static constexpr size_t MAX_KEPT = 1024;

    mutable std::mutex         mutex;
    std::deque<request_record> records; // with numbers that follow each other
    uint64_t                   last = 0;
};

} // namespace atlas
