#include "sharer.hpp"

#include "atlas-log.hpp"

#include <algorithm>
#include <exception>
#include <new>
#include <tuple>
#include <utility>

namespace atlas::memory {

using namespace std::chrono_literals;

constexpr auto TRY_TIME   = 2s; // for small questions
constexpr auto WRITE_TIME = 5s; // for one value

constexpr size_t JOBS_AT_ONCE = 32;
constexpr size_t KEPT_AT_ONCE = AT_ONCE; // as what is gone is queued again under one hold of the mutex

// Runs `action` on the thread of low priority, without the lock. Returns whether the tier did what it was to do.
template <typename F> bool sharer::unlocked(lock & held, bool is_reading, F action) {
    bool       is_done = false;
    const auto failed  = [&](const tier_error & error) {
        if (is_reading) {
            link.read_failed(error, true);
        } else {
            link.write_failed(error);
        }
    };
    held.unlock();
    background.run([&] {
        try {
            action();
            is_done = true;
        } catch (const tier_error & error) {
            failed(error);
        } catch (const std::exception & error) {
            failed(tier_error(tier_failure::broken, reason_of(error)));
        }
    });
    held.lock();
    if (!is_done) {
        state.progress.notify_all(); // flush_shared() waits in vain
    }
    return is_done;
}

void sharer::run() {
    lock held(state.mutex);
    keep_at = tier_clock::now() +
              std::chrono::duration_cast<tier_clock::duration>(std::chrono::duration<double>(queue.options.keep_s));
    while (!state.is_stopping) {
        try {
            act(held);
        } catch (const std::bad_alloc &) {
            if (!held.owns_lock()) {
                held.lock();
            }
            state.stop.wait_for(held, NO_MEMORY_PAUSE, [&] { return state.is_stopping; });
        }
    }
}

void sharer::act(lock & held) {
    log_trouble(held);
    if (!state.is_stopping && !step(held)) {
        state.share_work.wait_until(held, std::min(keep_at, link.now().next_try));
    }
}

// Logs once when trouble begins and once when it ends.
void sharer::log_trouble(lock & held) {
    const std::string problem = link.problem();
    if (problem.empty() == logged.empty()) {
        return;
    }
    logged = problem;
    held.unlock();
    const std::string what = link.number == SHARED_TIER ? "what servers share" : "layer " + std::to_string(link.number);
    if (logged.empty()) {
        logf(LogLevel::INFO, "%s works again: %s", what.c_str(), link.place.traits().address.c_str());
    } else {
        logf(LogLevel::WARN, "%s does not work, and is tried again from time to time: %s", what.c_str(),
             logged.c_str());
    }
    held.lock();
}

// Does the next thing that there is to do. Returns false when there is none.
bool sharer::step(lock & held) {
    life = queue.life();
    if (!queue.is_open()) {
        drop_all(held);
        return false;
    }
    const auto trouble = link.now();
    if (trouble.is_untried || trouble.try_reading) {
        try_again(held);
        return true;
    }
    if (!trouble.can_write) {
        return false;
    }
    if (queue.has_removals()) {
        remove(held);
        return true;
    }
    if (queue.entries() > 0) {
        send(held);
        return true;
    }
    if (tier_clock::now() >= keep_at) {
        keep(held);
        return true;
    }
    return false;
}

// Half open: a question and an answer of the size that requests need, by this thread and not by one of theirs.
void sharer::try_again(lock & held) {
    const std::string name  = link.last_name();
    const bool        works = unlocked(held, true, [&] {
        link.place.ping(tier_clock::now() + TRY_TIME);
        if (!name.empty()) {
            link.place.get({name}, tier_clock::now() + TRY_TIME, [](size_t, const tier_value &) { return true; });
        }
    });
    if (works) {
        link.read_worked();
    }
}

std::vector<std::string> sharer::names_of(const std::vector<share_job> & jobs) const {
    std::vector<std::string> names;
    names.reserve(jobs.size());
    for (const share_job & job : jobs) {
        names.push_back(link.codec.name_of(job.root, job.key));
    }
    return names;
}

void sharer::remove(lock & held) {
    const auto jobs = queue.take_removals();
    const bool is_done =
        unlocked(held, false, [&] { link.place.remove(names_of(jobs), tier_clock::now() + TRY_TIME); });
    if (is_done) {
        link.write_worked();
        return;
    }
    for (const share_job & job : jobs) {
        queue.push_removal(job.key, job.root);
    }
}

// One that was sent, or is not to be, waits no longer.
void sharer::settle(lock & held, const digest & key, bool is_there) {
    state.entries.note_shared(link.number, key, is_there && life == queue.life());
    auto released = queue.pop(1);
    held.unlock();
    released.clear(); // freeing takes long
    held.lock();
    state.progress.notify_all();
}

// Nobody takes it any more.
void sharer::drop_all(lock & held) {
    keep_at = tier_clock::now() +
              std::chrono::duration_cast<tier_clock::duration>(std::chrono::duration<double>(queue.options.keep_s));
    queue.take_removals();
    queue.take_used();
    while (!queue.is_open() && queue.entries() > 0 && !state.is_stopping) {
        settle(held, queue.next(1).front().key, false);
    }
}

// The first jobs: what another server has sent meanwhile needs not be sent again.
void sharer::send(lock & held) {
    const auto               jobs = queue.next(JOBS_AT_ONCE);
    std::vector<std::string> names;
    std::vector<bool>        there;
    const bool               is_asked = unlocked(held, false, [&] {
        names = names_of(jobs);
        there = link.place.probe(names, tier_clock::now() + TRY_TIME);
    });
    if (!is_asked) {
        return;
    }
    for (size_t i = 0; i < jobs.size() && !state.is_stopping && queue.is_open(); i++) {
        if (jobs[i].is_unwanted) {
            settle(held, jobs[i].key, false);
        } else if (there.at(i)) {
            link.count([](shared_stats & stats) { stats.already_there++; });
            settle(held, jobs[i].key, true);
        } else if (!send_one(held, jobs[i], names[i])) {
            return; // those behind it are worth nothing without it
        }
    }
}

bool sharer::send_one(lock & held, const share_job & job, const std::string & name) {
    const memory_entry & entry = *job.entry;
    const auto           began = tier_clock::now();
    const uint64_t       bytes = file_bytes(entry.tokens.size(), entry.data.size());
    if (shared_codec::max_stored_bytes(bytes) > link.place.traits().max_value_bytes) {
        queue.count_drop();
        settle(held, job.key, false);
        return true;
    }
    uint64_t   n_sent  = 0;
    const bool is_sent = unlocked(held, false, [&] {
        file_header header;
        header.key           = job.key;
        header.parent        = *digest_from_hex(entry.parent);
        header.kind          = entry.kind;
        header.tokens        = entry.tokens;
        header.position      = entry.position;
        header.data_bytes    = entry.data.size();
        header.data_checksum = checksum(entry.data.data(), entry.data.size());
        const auto start     = encode_header(header);
        const auto text_of   = [](const auto & of) {
            return std::string_view(reinterpret_cast<const char *>(of.data()), of.size());
        };
        const auto value = link.codec.wrap(name, {{text_of(start), text_of(entry.data)}, nullptr});
        for (const auto & piece : value.pieces) {
            n_sent += piece.size();
        }
        link.place.put(name, value.pieces, std::chrono::seconds((int64_t) queue.options.ttl_s),
                       tier_clock::now() + WRITE_TIME);
    });
    if (!is_sent) {
        return false;
    }
    link.write_worked();
    link.set_bytes_of(entry.kind, n_sent);
    link.count([&](shared_stats & stats) {
        stats.written_entries++;
        stats.written_bytes += n_sent;
    });
    settle(held, job.key, true);
    rest(held, tier_clock::now() - began);
    return true;
}

// Tells the tier what was used here: what is hot in RAM is never read from there, and would be given up first. Ends of
// conversations come before beginnings, so that these count as used last.
void sharer::keep(lock & held) {
    keep_at = tier_clock::now() +
              std::chrono::duration_cast<tier_clock::duration>(std::chrono::duration<double>(queue.options.keep_s));
    using one_used = std::pair<digest, used_at>;
    std::vector<one_used> used;
    {
        auto noted = queue.take_used();
        held.unlock(); // it may be many
        used.assign(noted.begin(), noted.end());
        std::sort(used.begin(), used.end(), [](const one_used & a, const one_used & b) {
            return std::tie(b.second.position, a.first) < std::tie(a.second.position, b.first);
        });
        noted.clear();
        held.lock();
    }
    for (size_t done = 0; done < used.size() && !state.is_stopping;) {
        const size_t      n = std::min(KEPT_AT_ONCE, used.size() - done);
        std::vector<bool> there;
        const bool        is_told = unlocked(held, false, [&] {
            std::vector<std::string> names;
            for (size_t i = done; i < done + n; i++) {
                names.push_back(link.codec.name_of(used[i].second.root, used[i].first));
            }
            there = link.place.keep(names, std::chrono::seconds((int64_t) queue.options.ttl_s),
                                    tier_clock::now() + WRITE_TIME);
        });
        if (!is_told) {
            return;
        }
        link.count(
            [&](shared_stats & stats) { stats.kept += (uint64_t) std::count(there.begin(), there.end(), true); });
        for (size_t i = n; i > 0; i--) { // what is gone is sent again, beginnings first
            if (!there.at(i - 1)) {
                state.entries.share_again(link.number, used[done + i - 1].first);
            }
        }
        done += n;
    }
}

// Pauses while a slot generates, as the writer does, unless the queue fills up or somebody waits.
void sharer::rest(lock & held, tier_clock::duration worked) {
    constexpr int MAX_RESTS   = 4;
    const auto    is_in_haste = [&] {
        return state.is_stopping || queue.flush_target > queue.finished_through() || queue.is_half_full();
    };
    if (state.is_busy && !is_in_haste()) {
        state.stop.wait_for(held, MAX_RESTS * worked, is_in_haste);
    }
}

} // namespace atlas::memory
