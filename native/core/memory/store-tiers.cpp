// The part of the store that has tiers beyond this machine.
#include "shared-fetch.hpp"
#include "store-impl.hpp"

#include <algorithm>

namespace atlas {

using namespace memory;

// What is fetched first counts by a block's size while it is on its way.
void memory_store::impl::tell_sizes(shared_link & link) const {
    if (expected_block > 0) {
        link.set_bytes_of(entry_kind::block, expected_block);
    }
    if (largest_entry > 0) {
        link.place.limit_values(shared_codec::max_stored_bytes(file_bytes(MAX_TOKENS, largest_entry)));
    }
}

void memory_store::impl::tell_all_sizes() const {
    for_links(MAX_TIER, [&](shared_link & link) {
        tell_sizes(link);
        return true;
    });
}

void memory_store::add_tier(int number, const shared_options & options) {
    shared_state & state   = self->state;
    const size_t   at      = (size_t) (number - SHARED_TIER);
    auto &         link    = self->links.at(at);
    auto &         sending = self->sending.at(at);
    if (!link) {
        link = std::make_unique<shared_link>(number, options);
    }
    link->set_open(true);
    {
        const std::lock_guard<std::mutex> held(state.mutex);
        share_queue &                     queue = state.entries.open_sharing(number, options);
        if (!sending) {
            try {
                sending = std::make_unique<sharer>(state, *link, queue);
            } catch (...) {
                state.entries.close_sharing(number);
                throw;
            }
        }
    }
    self->linked.at(at) = link.get();
    self->tell_sizes(*link);
    state.share_work.notify_all();
}

void memory_store::remove_tier(int number) {
    const size_t at = (size_t) (number - SHARED_TIER);
    if (self->linked.at(at).exchange(nullptr) == nullptr) {
        return;
    }
    self->links.at(at)->set_open(false);
    {
        const std::lock_guard<std::mutex> held(self->state.mutex);
        self->state.entries.close_sharing(number);
    }
    self->state.share_work.notify_all();
    self->state.progress.notify_all(); // flush_shared() waits in vain
}

void memory_store::try_tiers() {
    self->for_links(MAX_TIER, [](shared_link & link) {
        link.try_now();
        return true;
    });
    {
        const std::lock_guard<std::mutex> held(self->state.mutex);
    } // else a sharer may be about to wait, and hear nothing
    self->state.share_work.notify_all();
}

bool memory_store::has_linked_tier(int max_tier) const {
    bool has = false;
    self->for_links(max_tier, [&](shared_link &) {
        has = true;
        return false;
    });
    return has;
}

std::vector<int> memory_store::linked_tiers() const {
    std::vector<int> numbers;
    self->for_links(MAX_TIER, [&](const shared_link & link) {
        numbers.push_back(link.number);
        return true;
    });
    return numbers;
}

fetch_result memory_store::fetch(const std::string & root, const int32_t * tokens, size_t n_tokens,
                                 bool need_checkpoint, const memory_access & access,
                                 const std::function<bool()> & is_gone) {
    fetch_result  all;
    const auto    key      = digest_from_hex(root);
    tier_deadline until    = tier_deadline::max();
    bool          is_first = true;
    self->for_links(key ? access.max_tier : 0, [&](shared_link & link) {
        if (!link.may_read()) {
            return true;
        }
        shared_fetch one(self->state, link, self->options.block_tokens, access, is_gone, until);
        const auto   found = one.run(*key, tokens, n_tokens, need_checkpoint);
        all.n_before       = is_first ? found.n_before : all.n_before;
        all.n_entries += found.n_entries;
        all.tier = std::max(all.tier, found.tier);
        all.is_too_slow |= found.is_too_slow;
        until    = one.deadline();
        is_first = false;
        return !one.is_complete() && tier_clock::now() < until && !(is_gone && is_gone());
    });
    return all;
}

bool memory_store::flush_shared(double timeout_s, int max_tier) {
    struct target {
        const share_queue * queue;
        const shared_link * link;
        uint64_t            sequence;
        bool                is_reached() const { return queue->finished_through() >= sequence; }
        bool                is_hopeless() const { return !queue->is_open() || !link->problem().empty(); }
    };

    shared_state & state = self->state;
    const auto     deadline =
        tier_clock::now() + std::chrono::duration_cast<tier_clock::duration>(std::chrono::duration<double>(timeout_s));
    std::vector<target>          targets;
    std::unique_lock<std::mutex> held(state.mutex);
    self->for_links(max_tier, [&](const shared_link & link) {
        share_queue & queue = *state.entries.sharing(link.number);
        targets.push_back({&queue, &link, queue.last_sequence()});
        queue.flush_target = std::max(queue.flush_target, targets.back().sequence);
        return true;
    });
    state.share_work.notify_all();
    state.stop.notify_all();
    const auto all = [&](auto is_so) { return std::all_of(targets.begin(), targets.end(), is_so); };
    state.progress.wait_until(held, deadline, [&] {
        return state.is_stopping || all([](const target & one) { return one.is_reached() || one.is_hopeless(); });
    });
    return !targets.empty() && all([](const target & one) { return one.is_reached(); });
}

void memory_store::add_linked(memory_stats & to) const {
    self->for_links(MAX_TIER, [&](const shared_link & link) {
        auto stats = link.stats();
        {
            const std::lock_guard<std::mutex> held(self->state.mutex);
            const share_queue &               queue = *self->state.entries.sharing(link.number);
            stats.queue_entries                     = queue.entries();
            stats.queue_bytes                       = queue.bytes();
            stats.drops                             = queue.drops();
        }
        if (link.number == SHARED_TIER) {
            to.shared = stats;
        }
        to.linked.push_back(std::move(stats));
        return true;
    });
}

} // namespace atlas
