#include "atlas-background-routes.hpp"

#include "atlas-error.hpp"

#include <charconv>
#include <chrono>
#include <string>
#include <string_view>
#include <utility>

namespace atlas {

using namespace std::chrono_literals;

static constexpr std::string_view ROOT = "/v1/responses/", CANCEL = "/cancel", COMPACT = "compact";

static constexpr auto WAKES_EVERY = 500ms; // to notice that a reader has left
static constexpr auto PINGS_EVERY = 15s; // for proxies, which cut what is silent
static constexpr auto PATIENCE    = 30s; // for the end of what is cancelled

static constexpr int RETRY_AFTER_S = 1;

static std::string_view parameter(std::string_view query, std::string_view wanted) {
    while (!query.empty()) {
        const size_t           end   = std::min(query.find('&'), query.size());
        const std::string_view pair  = query.substr(0, end);
        const size_t           equal = std::min(pair.find('='), pair.size());
        if (pair.substr(0, equal) == wanted) {
            return pair.substr(std::min(equal + 1, pair.size()));
        }
        query.remove_prefix(std::min(end + 1, query.size()));
    }
    return "";
}

// The number of the first event that is wanted.
static int64_t first_wanted(std::string_view query) {
    const auto text = parameter(query, "starting_after");
    int64_t    n    = -1;
    const auto read = std::from_chars(text.data(), text.data() + text.size(), n);
    if (!text.empty() &&
        (read.ec != std::errc() || read.ptr != text.data() + text.size() || n < -1 || n >= INT64_MAX)) {
        throw validation_error("starting_after", "value must be the sequence_number of an event");
    }
    return n + 1;
}

static bool is_to_be_streamed(std::string_view query) {
    const auto text = parameter(query, "stream");
    if (!text.empty() && text != "true" && text != "false") {
        throw validation_error("stream", "value must be true or false");
    }
    return text == "true";
}

static std::string gone(const streamed_events & events) {
    return "events before number " + std::to_string(events.first_kept()) +
           " of this response are not kept any more: ask for later ones, or for the response without stream once it "
           "has "
           "ended";
}

static std::string error_event(const std::string & message) {
    return "event: error\ndata: " + error_body(503, message) + "\n\n";
}

http_response stream_of(background_responses::shared response, int64_t first) {
    http_response answer;
    answer.content_type = "text/event-stream";
    answer.next         = [response = std::move(response), next = first,
                           said = background_responses::clock::now()](std::string & piece) mutable {
        const auto   now    = background_responses::clock::now();
        const size_t before = piece.size();
        const auto   how    = response->events.read(next, piece, now + WAKES_EVERY);
        if (how == streamed_events::reading::lost) {
            piece += error_event(gone(response->events));
            return false;
        }
        if (piece.size() > before) {
            said = now;
        } else if (how == streamed_events::reading::more && now - said >= PINGS_EVERY) {
            piece += ":\n\n";
            said = now;
        }
        return how == streamed_events::reading::more;
    };
    return answer;
}

static std::optional<http_response> show(background_responses & of, const background_responses::shared & response,
                                         const std::string & query) {
    const std::string shown = response->shown();
    if (!is_to_be_streamed(query)) {
        http_response answer;
        answer.body = shown;
        return shown.empty() ? std::nullopt : std::optional(std::move(answer));
    }
    const int64_t first = first_wanted(query);
    if (!response->is_streamed) {
        throw validation_error("stream", "this response was made without \"stream\": true: ask for it without stream");
    }
    if (first >= response->events.first_kept()) {
        return stream_of(response, first);
    }
    if (shown.empty()) {
        of.forget(response); // of what has ended, Python makes events anew
        return std::nullopt;
    }
    throw validation_error("starting_after", gone(response->events));
}

static void end(background_responses & of, const background_responses::shared & response) {
    if (!of.cancel(response, PATIENCE)) {
        throw error(503, "the response has not ended yet: try again", RETRY_AFTER_S);
    }
}

std::optional<http_response> answer_of_background(background_responses & of, const http_request & request) {
    std::string_view path = request.path;
    if (path.substr(0, ROOT.size()) != ROOT) {
        return std::nullopt;
    }
    path.remove_prefix(ROOT.size());
    if (path == COMPACT && request.method == "POST") {
        return error_response(400,
                              "this server compacts no conversations: send the items that are to stay, or a summary "
                              "of them, as input");
    }
    const bool is_cancel = path.size() > CANCEL.size() && path.substr(path.size() - CANCEL.size()) == CANCEL;
    if (is_cancel) {
        path.remove_suffix(CANCEL.size());
    }
    const auto response = of.find(request.tenant, std::string(path));
    if (!response) {
        return std::nullopt;
    }
    try {
        if (request.method == "GET" && !is_cancel) {
            return show(of, response, request.query);
        }
        if (request.method == "POST" && is_cancel) {
            end(of, response);
            return show(of, response, ""); // where it could not be kept
        }
        if (request.method == "DELETE" && !is_cancel) {
            end(of, response);
            of.forget(response);
        }
    } catch (const error & e) {
        return error_response(e);
    }
    return std::nullopt;
}

} // namespace atlas
