#include "atlas-recorder.hpp"

#include <new>

namespace atlas {

namespace {

constexpr size_t SHARED     = recorder::N_OWNED; // the shard of all threads that have no own one
constexpr size_t NONE       = SIZE_MAX;
constexpr size_t LINE_BYTES = 64;
constexpr size_t LINE_CELLS = LINE_BYTES / sizeof(uint64_t);

std::array<std::atomic<bool>, recorder::N_OWNED> is_taken;

// Has no constructor and no destructor, so that reading it is a load.
thread_local size_t my_shard = NONE;

// Gives a shard back when its thread ends. What the thread records after that goes to the shared one.
struct shard_lease {
    ~shard_lease() {
        is_taken[my_shard].store(false, std::memory_order_release);
        my_shard = SHARED;
    }
};

[[gnu::noinline]] size_t take_shard() {
    for (size_t i = 0; i < recorder::N_OWNED; i++) {
        // acquire: this thread sees what the shard's last owner wrote
        if (!is_taken[i].exchange(true, std::memory_order_acquire)) {
            my_shard = i;
            static thread_local const shard_lease lease;
            static_cast<void>(lease);
            return i;
        }
    }
    return my_shard = SHARED;
}

size_t shard() { return __builtin_expect(my_shard == NONE, 0) ? take_shard() : my_shard; }

void increase(std::atomic<uint64_t> & cell, uint64_t n, bool is_shared) {
    if (__builtin_expect(is_shared, 0)) {
        cell.fetch_add(n, std::memory_order_relaxed);
    } else {
        cell.store(cell.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
    }
}

} // namespace

recorder::recorder(size_t n_counters, size_t n_histograms, bool is_on)
    : n_counters(n_counters),
      n_cells((n_counters + n_histograms * HISTOGRAM_CELLS + LINE_CELLS - 1) / LINE_CELLS * LINE_CELLS),
      cells(is_on ? new (std::align_val_t(LINE_BYTES)) cell[(N_OWNED + 1) * n_cells]() : nullptr) {}

void recorder::aligned_delete::operator()(cell * cells) const {
    operator delete[](cells, std::align_val_t(LINE_BYTES));
}

void recorder::add(size_t counter, uint64_t n) {
    if (is_on()) {
        const size_t mine = shard();
        increase(cells[mine * n_cells + counter], n, mine == SHARED);
    }
}

void recorder::record(size_t histogram, std::chrono::nanoseconds duration) {
    if (is_on()) {
        const size_t mine  = shard();
        cell *       first = &cells[mine * n_cells + histogram_cell(histogram)];
        const auto   ns    = duration.count();
        increase(first[duration_buckets::index_of(ns)], 1, mine == SHARED);
        increase(first[duration_buckets::N], ns > 0 ? ns : 0, mine == SHARED);
    }
}

uint64_t recorder::sum(size_t index) const {
    uint64_t total = 0;
    for (size_t i = 0; is_on() && i <= N_OWNED; i++) {
        total += cells[i * n_cells + index].load(std::memory_order_relaxed);
    }
    return total;
}

uint64_t recorder::count(size_t counter) const { return sum(counter); }

duration_counts recorder::read(size_t histogram) const {
    const size_t    first = histogram_cell(histogram);
    duration_counts found;
    for (size_t i = 0; i < found.counts.size(); i++) {
        found.counts[i] = sum(first + i);
    }
    found.sum_ns = sum(first + duration_buckets::N);
    return found;
}

} // namespace atlas
