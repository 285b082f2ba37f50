#include "resp-pool.hpp"

namespace atlas::resp {

constexpr size_t MAX_IDLE = 4; // of a kind

connection_pool::connection_pool(std::unique_ptr<server_account> account, size_t n_reading) : of(std::move(account)) {
    of_kind(use::value).most = n_reading;
}

connection_pool::lease::~lease() {
    if (pool) {
        pool->end(*this, false);
    }
}

void connection_pool::lease::give_back() { std::exchange(pool, nullptr)->end(*this, true); }

void connection_pool::end(lease & of, bool is_to_be_kept) {
    {
        std::lock_guard held(mutex);
        shelf &         home = of_kind(of.kind);
        home.n_taken--;
        if (is_to_be_kept && home.idle.size() < MAX_IDLE) {
            home.idle.push_back(std::move(of.held));
        }
    }
    of.held = nullptr;
    freed.notify_one();
}

connection_pool::lease connection_pool::take(use kind, tier_deadline until) {
    std::unique_lock held(mutex);
    shelf &          from = of_kind(kind);
    if (!freed.wait_until(held, until, [&] { return from.n_taken < from.most; })) {
        of->fail(tier_failure::late, "all connections are in use");
    }
    return connected(kind, std::move(held), until);
}

std::optional<connection_pool::lease> connection_pool::try_take(use kind, tier_deadline until) {
    std::unique_lock held(mutex);
    if (of_kind(kind).n_taken >= of_kind(kind).most) {
        return std::nullopt;
    }
    return connected(kind, std::move(held), until);
}

connection_pool::lease connection_pool::connected(use kind, std::unique_lock<std::mutex> held, tier_deadline until) {
    shelf & from = of_kind(kind);
    from.n_taken++;
    lease taken(*this, kind);
    taken.held = idle_one(from);
    held.unlock();
    if (!taken.held) {
        taken.held = std::make_unique<connection>(*of, until);
    }
    return taken;
}

// Those that were closed by the server meanwhile are of no use.
std::unique_ptr<connection> connection_pool::idle_one(shelf & from) {
    while (!from.idle.empty()) {
        auto one = std::move(from.idle.back());
        from.idle.pop_back();
        if (one->is_idle()) {
            return one;
        }
    }
    return nullptr;
}

} // namespace atlas::resp
