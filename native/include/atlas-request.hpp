// The `atlas` object of a completion request and of its answer.
#pragma once

#include "atlas-ticket.hpp"

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

namespace atlas {

// The validated `atlas` object; a field that was not given has no value or its default.
struct request_options {
    std::optional<std::string> session_id;    // 1-128 of A-Z a-z 0-9 . _ : -
    std::optional<int>         memory_layers; // 1-10: layers that the request may use; default: all there are
    cache_strategy             strategy = cache_strategy::adaptive;
    std::optional<int>         batch_size; // 1-32: sequences of one request that may hold slots at once
};

// Whether text may name a session or a context.
bool is_valid_id(const std::string & text);

// Validates the JSON text of an `atlas` object. Throws atlas::error (400) that names the field, as 'atlas.batch_size'.
request_options parse_request_options(const std::string & json);

// What really happened to the prompt, added up over the sequences of one request.
struct request_usage {
    int64_t prompt_tokens = 0;
    int64_t reused_tokens = 0; // of these, not computed again
};

// One completion request that carries an `atlas` object, from parsing to its answer. Used by one thread at a time.
class request {
  public:
    using clock = std::chrono::steady_clock;

    // began: when ATLAS began to look at the request. degraded_reason: why something asked for cannot be had; empty
    // when all can.
    request(request_options options, clock::time_point began, std::string degraded_reason);

    void add_usage(const request_usage & more);

    // What the memory found for the request's (first) prompt.
    void set_ticket(std::shared_ptr<const memory_ticket> found) {
        if (!ticket) {
            ticket = std::move(found);
        }
    }

    // Adds to the time spent in ATLAS for this request.
    void add_overhead(clock::duration spent) { overhead += spent; }

    // JSON text of the `atlas` object in the answer; also writes the request's log line.
    std::string answer() const;

    const request_options & options() const { return opts; }

  private:
    request_options opts;
    std::string     degraded_reason;
    request_usage   usage;

    std::shared_ptr<const memory_ticket> ticket;

    clock::duration overhead;
};

} // namespace atlas
