// No memory: each allocation of a run fails in turn, alone or with all after it until whoever asked has been told. The
// books agree afterwards, no thread has ended the process, and what is asked next works.
#include "catalog-driver.hpp"

#include <atomic>
#include <cstdlib>
#include <new>

using namespace memory_test;
using memory::catalog_audit;

static constexpr int64_t NEVER = INT64_MAX;

static std::atomic<int64_t> n_left{NEVER}; // allocations that still succeed
static std::atomic<bool>    has_failed{false}, fails_once{false};

[[maybe_unused]] static void * allocate(size_t n_bytes, size_t alignment) {
    if (n_left.load(std::memory_order_relaxed) != NEVER && n_left-- <= 0) {
        has_failed = true;
        n_left     = fails_once ? NEVER : 0;
        throw std::bad_alloc();
    }
    void * const made = alignment > alignof(std::max_align_t)
                            ? std::aligned_alloc(alignment, (n_bytes + alignment - 1) / alignment * alignment)
                            : std::malloc(n_bytes);
    if (!made) {
        throw std::bad_alloc();
    }
    return made;
}

// In place of the standard library's, for the whole program. A sanitizer has its own, and then nothing fails.
#ifndef CASES_ARE_SANITIZED
void * operator new(size_t n_bytes) { return allocate(n_bytes, 1); }
void * operator new(size_t n_bytes, std::align_val_t alignment) { return allocate(n_bytes, (size_t) alignment); }
void   operator delete(void * at) noexcept { std::free(at); }
void   operator delete(void * at, size_t) noexcept { std::free(at); }
void   operator delete(void * at, std::align_val_t) noexcept { std::free(at); }
void   operator delete(void * at, size_t, std::align_val_t) noexcept { std::free(at); }
#endif

namespace {

// Runs steps until one meets a failure; then there is memory again.
struct failing {
    explicit failing(int64_t n) {
        has_failed = false;
        n_left     = n;
    }
    ~failing() { n_left = NEVER; }

    template <typename F> void step(F act) {
        try {
            act();
        } catch (const std::bad_alloc &) {
            CHECK(has_failed);
        }
        if (has_failed) {
            n_left = NEVER;
        }
    }
};

struct turn {
    memory_entry  entry;
    memory_access access;
    bool          supersedes;
};

// What conversations of three sessions put, made before memory ends.
std::vector<turn> some_turns() {
    std::vector<turn> turns;
    for (uint32_t n = 0; n < 6; n++) {
        memory_access access;
        access.session_id = "a session whose name is too long to be kept in place " + std::to_string(n % 3);
        access.strategy   = (cache_strategy) (n % 3);
        auto       tokens = some_tokens(0, BLOCK);
        const auto own    = some_tokens(n + 1, BLOCK + 5);
        tokens.insert(tokens.end(), own.begin(), own.end());
        std::string parent = ROOT;
        const auto  add    = [&](entry_kind kind, size_t begin, size_t end, bool supersedes) {
            auto entry     = make_entry(kind, parent, slice(tokens, begin, end), 700);
            entry.position = begin;
            entry.key      = memory_store::key_of(kind, parent, entry.tokens.data(), entry.tokens.size());
            const auto key = entry.key;
            turns.push_back({std::move(entry), access, supersedes});
            return key;
        };
        parent = add(entry_kind::block, 0, BLOCK, false);
        parent = add(entry_kind::block, BLOCK, 2 * BLOCK, true);
        add(entry_kind::tail, 2 * BLOCK, 2 * BLOCK + 3, false);
        add(entry_kind::tail, 2 * BLOCK, 2 * BLOCK + 5, true);
        add(entry_kind::checkpoint, 2 * BLOCK, 2 * BLOCK + 4, false);
    }
    return turns;
}

// Everything that changes a catalog, with budgets that do not suffice. Returns whether memory lasted.
bool run_catalog(int64_t n, const std::vector<turn> & turns, const memory_options & given) {
    catalog_driver of(given);
    of.catalog->events.take(0);
    failing                       memory(n);
    std::optional<memory::digest> last;
    size_t                        depth = 0;
    for (size_t i = 0; i < turns.size(); i++) {
        const turn & next    = turns[i];
        auto &       catalog = *of.catalog;
        depth                = next.entry.position == 0 ? 0 : depth + 1;
        memory.step([&] { last = of.put(next.entry, next.supersedes ? last : std::nullopt, next.access); });
        memory.step([&] { catalog.sessions.extend(next.access.session_id, depth, key_of(next.entry.key), i); });
        memory.step([&] { of.write(i % 7 != 0); });
        if (i % 4 == 0) {
            memory.step([&] { of.find(turns[i / 2].entry.tokens, false); });
            memory.step([&] { catalog.pin(next.access.session_id, 100); });
            memory.step([&] { catalog.sessions.update_pin(next.access.session_id, 2); });
            memory.step([&] { catalog.sessions.set_pinned(next.access.session_id, i % 8 == 0); });
        }
        if (i % 9 == 8) {
            memory.step([&] {
                if (auto taken = catalog.sessions.take(turns[i / 2].access.session_id)) {
                    for (bool is_unwanted = true; !taken->chain.empty();) {
                        catalog.unref(*taken, is_unwanted, 1);
                    }
                }
            });
            if (!of.files.empty()) {
                const auto & lost = *of.files.begin();
                memory.step([&] { catalog.remove_damaged_file(lost.first); });
                memory.step([&] { catalog.add_file(lost.second.header, lost.second.bytes, 5); });
            }
        }
        if (has_failed && n_left == NEVER) {
            catalog_audit::check(catalog);
        }
    }
    memory.step([&] { of.open(); });
    const bool lasted = !has_failed;
    n_left            = NEVER;
    while (of.write()) {
    }
    catalog_audit::check(*of.catalog);
    CHECK(of.catalog->queue.n_jobs() == 0 && of.catalog->stats().pending_entries == 0);
    CHECK(of.catalog->stats().disk_bytes <= given.disk_bytes);
    return lasted;
}

} // namespace

CASE(each_allocation_of_the_catalog_fails) {
    const auto     turns    = some_turns();
    memory_options small    = options("/nowhere", 8000, 12000);
    small.write_queue_bytes = 4000;
    for (const double delay_s : {0.0, 3600.0}) {
        small.write_delay_s = delay_s;
        for (const bool once : {false, true}) {
            fails_once = once;
            for (int64_t n = 0; !run_catalog(n, turns, small); n++) {
            }
        }
    }
}

// All threads of a store. What fails in one of these is made up for.
CASE(each_allocation_of_a_store_fails) {
    constexpr int64_t STEP = 3;
    fails_once             = true; // as threads try again, and would in vain
    const auto told = some_tokens(1, 3 * BLOCK + 5), later = some_tokens(2, 2 * BLOCK);
    bool       lasted = false;
    for (int64_t n = 0; !lasted; n += STEP) {
        const std::string path = dir + "/" + std::to_string(n);
        lasted                 = true;
        int64_t rest           = n;
        for (int round = 0; round < 2 && lasted; round++) { // the second finds what the first wrote
            failing                       memory(rest);
            std::unique_ptr<memory_store> store;
            memory.step([&] {
                memory_options given = options(path, MiB, MiB);
                given.preload_bytes  = MiB / 2;
                store                = std::make_unique<memory_store>(given);
            });
            if (store) {
                memory.step([&] { store->preload({ROOT}); });
                memory.step([&] { wait_indexed(*store); });
                memory.step([&] { put_all(*store, told); });
                memory.step([&] { store->extend_session("ada", 0, ROOT, 1); });
                memory.step([&] { store->flush(60); });
                memory.step([&] { find(*store, told); });
                memory.step([&] { store->pin_session("ada", true); });
                memory.step([&] { store->sessions_since(0, 9); });
                memory.step([&] { store->remove_session("ada", true); });
            }
            lasted = !has_failed;
            rest   = n_left.exchange(NEVER);
            if (store) {
                put_all(*store, later);
                flush(*store);
                CHECK(find(*store, later).n_tokens == later.size());
            }
        }
        memory_store store(options(path, 0));
        wait_indexed(store);
        find(store, told);
        CHECK(store.stats().bad_checksum == 0 && store.stats().foreign_files == 0);
        std::filesystem::remove_all(path);
    }
}
