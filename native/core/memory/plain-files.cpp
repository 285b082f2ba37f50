#include "plain-files.hpp"

#include "atlas-log.hpp"

#include <chrono>
#include <exception>

namespace atlas::memory {

namespace {

using clock = std::chrono::steady_clock;

class replacing {
  public:
    explicit replacing(shared_state & state)
        : state(state), files(state.files.path(), state.files.is_durable(), state.files.seals_by()) {}

    // Returns false when the store is being closed.
    bool replace(const digest & key) {
        const auto        began = clock::now();
        const std::string plain = files.path_of_name(key);
        file_header       header;
        file_facts        facts;
        state_bytes       data;
        if (read_file(plain, header, facts, &data) == read_result::good && header.key == key) {
            files.write(header, data, [] {});
            files.sync();
            set_file_time(files.file_path(key), facts.modified_ns);
            files.remove_file(plain);
        }
        if (!is_kept(key)) {
            files.remove(key); // it was evicted meanwhile
        }
        return rest(clock::now() - began);
    }

  private:
    shared_state & state;
    directory      files; // of its own, as that of the state is the writer's

    bool is_kept(const digest & key) {
        const std::lock_guard<std::mutex> held(state.mutex);
        state.entries.counters.plain_files--;
        return !state.entries.must_remove({key, 0});
    }

    bool rest(clock::duration worked) {
        constexpr int                MAX_RESTS = 4;
        std::unique_lock<std::mutex> held(state.mutex);
        if (state.is_busy) {
            state.stop.wait_for(held, MAX_RESTS * worked, [&] { return state.is_stopping; });
        }
        return !state.is_stopping;
    }
};

} // namespace

void seal_plain_files(shared_state & state, const std::vector<digest> & keys) {
    logf(LogLevel::INFO, "%zu entries in %s are not encrypted yet: they are now, and their plain files removed",
         keys.size(), state.files.path().c_str());
    size_t n = 0;
    try {
        replacing all(state);
        while (n < keys.size() && all.replace(keys[n])) {
            n++;
        }
    } catch (const std::exception & error) {
        logf(LogLevel::WARN, "%zu entries in %s stay as they are until the next start: %s", keys.size() - n,
             state.files.path().c_str(), reason_of(error).c_str());
        return;
    }
    if (n == keys.size()) {
        logf(LogLevel::INFO, "all entries in %s are encrypted", state.files.path().c_str());
    }
}

} // namespace atlas::memory
