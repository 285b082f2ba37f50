// What clients ask of responses that are made in the background, as long as they are; of others Python knows.
#pragma once

#include "atlas-background.hpp"
#include "atlas-http.hpp"

#include <memory>
#include <optional>

namespace atlas {

// Answers GET /v1/responses/{id}, streamed too, of a response that is being made, or whose events are there still. Has one end
// that is to be cancelled or deleted. Nothing where the rest is Python's: it is asked next. HTTP threads; may wait for the
// end of what is cancelled.
std::optional<http_response> answer_of_background(background_responses & of, const http_request & request);

// A response's events from number `first` on, as they come.
http_response stream_of(background_responses::shared response, int64_t first);

} // namespace atlas
