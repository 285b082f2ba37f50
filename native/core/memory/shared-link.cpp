#include "shared-link.hpp"

#include <algorithm>
#include <utility>

namespace atlas::memory {

shared_link::shared_link(int number, const shared_options & options)
    : owner(options.place), codec_owner(options.codec ? options.codec : std::make_shared<const shared_codec>()),
      number(number), timeout_s(options.timeout_s), place(*owner), codec(*codec_owner) {
    counted.is_on   = true;
    counted.number  = number;
    counted.kind    = place.traits().scheme;
    counted.address = place.traits().address;
}

void shared_link::set_open(bool is_open) {
    const std::lock_guard<std::mutex> held(mutex);
    is_in_use  = is_open;
    is_tried   = false;
    is_doubted = false;
    reading.worked();
    writing.worked();
}

bool shared_link::is_open() const {
    const std::lock_guard<std::mutex> held(mutex);
    return is_in_use;
}

void shared_link::try_now() {
    const std::lock_guard<std::mutex> held(mutex);
    reading.try_now();
    writing.try_now();
}

bool shared_link::may_read() const {
    const std::lock_guard<std::mutex> held(mutex);
    return is_in_use && is_tried && !is_doubted && !reading.is_open();
}

void shared_link::read_worked() {
    const std::lock_guard<std::mutex> held(mutex);
    is_tried   = true;
    is_doubted = false;
    reading.worked();
}

void shared_link::read_failed(const tier_error & error, bool is_fair) {
    const std::lock_guard<std::mutex> held(mutex);
    is_tried = true;
    if (error.kind == tier_failure::late) {
        counted.timeouts++;
        if (!is_fair) {
            is_doubted = true;
            return;
        }
    } else {
        counted.read_failures++;
    }
    if (std::exchange(is_doubted, false)) {
        reading.open(error);
    } else {
        reading.failed(error);
    }
}

void shared_link::write_worked() {
    const std::lock_guard<std::mutex> held(mutex);
    writing.worked();
}

void shared_link::write_failed(const tier_error & error) {
    const std::lock_guard<std::mutex> held(mutex);
    counted.write_failures++;
    writing.failed(error);
}

shared_link::troubles shared_link::now() const {
    const std::lock_guard<std::mutex> held(mutex);
    troubles found = {!is_tried || is_doubted, reading.is_to_be_tried(),
                      is_tried && (!writing.is_open() || writing.is_to_be_tried()), tier_deadline::max()};
    for (const tier_breaker * one : {&reading, &writing}) {
        if (one->is_open() && !one->is_to_be_tried()) {
            found.next_try = std::min(found.next_try, one->state().retry_at());
        }
    }
    return found;
}

void shared_link::add_reading(double seconds, uint64_t bytes, entry_kind kind) {
    byte_cost.add(seconds, (double) bytes);
    set_bytes_of(kind, bytes);
}

bool shared_link::is_too_slow(double seconds, double worth_s) {
    constexpr double   NOTICED_S = 0.005;
    constexpr uint64_t TRY_AGAIN = 32;
    const bool         is_so     = worth_s > 0 && seconds > worth_s / 2 + NOTICED_S && ++n_too_slow % TRY_AGAIN != 0;
    if (is_so) {
        count([](shared_stats & stats) { stats.below_break_even++; });
    }
    return is_so;
}

void shared_link::set_last_name(const std::string & name) {
    const std::lock_guard<std::mutex> held(mutex);
    last = name;
}

std::string shared_link::last_name() const {
    const std::lock_guard<std::mutex> held(mutex);
    return last;
}

std::string shared_link::problem() const {
    const std::lock_guard<std::mutex> held(mutex);
    return reading.is_open() ? reading.state().problem() : writing.state().problem();
}

shared_stats shared_link::stats() const {
    const tier_counts                 counts   = place.counts();
    const double                      per_byte = byte_cost.seconds_per_unit();
    const std::lock_guard<std::mutex> held(mutex);
    shared_stats                      stats = counted;
    auto                              retry = tier_deadline::max();
    stats.is_tried                          = is_tried;
    stats.round_trip_s                      = counts.round_trip_s;
    stats.entries                           = counts.held_entries;
    stats.bytes                             = counts.held_bytes;
    stats.bytes_per_s                       = per_byte > 0 ? 1 / per_byte : 0;
    for (const tier_breaker * one : {&reading, &writing}) {
        if (one->is_open()) {
            stats.problem = stats.problem.empty() ? one->state().problem() : stats.problem;
            retry         = std::min(retry, one->state().retry_at());
        }
    }
    if (!stats.problem.empty()) {
        stats.retry_s = std::max(0.0, std::chrono::duration<double>(retry - tier_clock::now()).count());
    }
    return stats;
}

} // namespace atlas::memory
