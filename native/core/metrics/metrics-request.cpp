#include "atlas-metrics.hpp"

#include <algorithm>
#include <string_view>

namespace atlas {

request_route route_of(const std::string & path) {
    static constexpr std::pair<std::string_view, request_route> ENDS[] = {
        {"/chat/completions", request_route::chat}, {"/v1/completions", request_route::completions},
        {"/responses", request_route::responses},   {"/messages", request_route::messages},
        {"/infill", request_route::infill},
    };
    for (const auto & [end, route] : ENDS) {
        if (path.size() >= end.size() && path.compare(path.size() - end.size(), end.size(), end) == 0) {
            return route;
        }
    }
    return request_route::completion; // and /completions, its other name
}

request_meter::request_meter(metrics & to, request_route route, std::function<bool()> is_gone, clock::time_point began)
    : to(to), route(route), is_gone(std::move(is_gone)), began(began), posted(began) {
    to.in_progress.fetch_add(1, std::memory_order_relaxed);
}

void request_meter::go_on(std::function<bool()> is_gone, clock::time_point began) {
    this->is_gone = std::move(is_gone);
    this->began   = began;
    posted        = began;
}

request_meter::~request_meter() { end(); }

void request_meter::end() {
    if (ended != clock::time_point()) {
        return;
    }
    ended = clock::now();
    to.in_progress.fetch_sub(1, std::memory_order_relaxed);
    if (!outcome) {
        outcome = is_gone && is_gone() ? request_outcome::cancelled : request_outcome::error;
    }
    to.values.add(metrics::requests(route, *outcome, has_atlas_object));
    if (first_token != clock::time_point()) {
        to.values.record(metrics::FIRST_TOKEN, first_token - began);
    }
    if (outcome == request_outcome::ok) {
        to.values.record(metrics::REQUEST, ended - began);
        to.values.add(total.reused_tokens > 0 ? metrics::CACHE_HITS : metrics::CACHE_MISSES);
    }
}

static double ms_of(request_meter::clock::duration time) {
    return std::chrono::duration<double, std::milli>(time).count();
}

metered_request request_meter::described() const {
    metered_request record;
    record.route       = REQUEST_ROUTE_NAMES[static_cast<size_t>(route)];
    record.outcome     = REQUEST_OUTCOME_NAMES[static_cast<size_t>(*outcome)];
    record.is_streamed = is_streamed;
    record.tokens      = total;
    record.ms          = times;
    record.ms.total    = ms_of(ended - began);
    record.ms.wait     = ms_of(waits);
    if (first_token != clock::time_point()) {
        record.ms.first_token = ms_of(first_token - began);
        record.ms.decode      = ms_of(ended - first_token);
    }
    return record;
}

void request_meter::set_choices(size_t n, bool separate) {
    n_choices    = std::max<size_t>(n, 1);
    are_separate = separate;
}

void request_meter::add_prompt(std::shared_ptr<const lookup_result> found, clock::time_point now) {
    prompts.push_back(std::move(found));
    posted = now;
}

void request_meter::refuse(refusal why) {
    outcome = request_outcome::refused;
    to.values.add(metrics::refusals(why));
}

void request_meter::add_result(const sequence_result & result, clock::time_point now) {
    if (result.index >= sequences.size()) {
        sequences.resize(result.index + 1);
    }
    auto & known = sequences[result.index];
    if (!known.is_prompt_counted && (result.answer_tokens > 0 || !result.is_partial)) {
        known.is_prompt_counted = true;
        count_prompt(result);
    }
    if (result.answer_tokens > known.answer_tokens) {
        count_answer(known, result, now);
    }
    if (result.is_timed && !is_copy(result.index)) {
        record_times(result, now);
    }
}

void request_meter::count_answer(sequence & known, const sequence_result & result, clock::time_point now) {
    const int64_t n_new = result.answer_tokens - known.answer_tokens;
    to.values.add(metrics::ANSWER_TOKENS, n_new);
    total.answer_tokens += n_new;
    known.answer_tokens = result.answer_tokens;
    is_streamed |= result.is_partial;
    if (result.is_partial) {
        if (known.last_token != clock::time_point()) {
            to.values.record(metrics::INTER_TOKEN, now - known.last_token);
        }
        known.last_token = now;
    }
    // an answer that is not streamed has one result, which comes with the last token
    const auto first = std::max(began, is_streamed ? now : now - result.since_first_token);
    if (first_token == clock::time_point() || first < first_token) {
        first_token = first;
    }
}

void request_meter::record_times(const sequence_result & result, clock::time_point now) {
    const auto started = std::max(now - result.since_start, posted);
    const auto prefill = result.since_start - result.since_first_token;
    to.values.record(metrics::QUEUE, waits + (started - posted));
    to.values.record(metrics::PREFILL, prefill);
    if (result.index == 0) {
        times.queue   = ms_of(started - posted);
        times.prefill = ms_of(prefill);
    }
}

void request_meter::count_prompt(const sequence_result & result) {
    total.prompt_tokens += result.prompt_tokens;
    total.reused_tokens += result.reused_tokens;
    const auto count = [this](token_source from, int64_t n) { to.values.add(metrics::prompt_tokens(from), n); };
    if (is_copy(result.index)) {
        count(token_source::slot, result.prompt_tokens);
        return;
    }
    const size_t          prompt = result.index / n_choices;
    const lookup_result * lookup = prompt < prompts.size() ? prompts[prompt].get() : nullptr;
    for (size_t i = result.index % n_choices; i > 0 && lookup != nullptr; i--) {
        lookup = lookup->next_choice.get();
    }
    const auto how         = lookup != nullptr ? lookup->outcome() : restore_outcome();
    const bool is_restored = how.result == restore_result::restored;
    const auto from        = !is_restored              ? token_source::slot
                             : how.tier == 1           ? token_source::ram
                             : how.tier == SHARED_TIER ? token_source::shared
                             : how.tier > SHARED_TIER  ? token_source::plugins
                                                       : token_source::disk;
    count(from, result.reused_tokens);
    count(token_source::computed, result.prompt_tokens - result.reused_tokens);
}

} // namespace atlas
