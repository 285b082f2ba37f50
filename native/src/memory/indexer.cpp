#include "indexer.hpp"

#include "buffer-pool.hpp"

#include <algorithm>
#include <filesystem>
#include <utility>

namespace atlas::memory {

namespace fs = std::filesystem;

constexpr size_t BATCH      = 64; // files told to the catalog at once
constexpr int    FILE_LEVEL = 2;  // directories between blocks/ and a file

void indexer::run() {
    while (true) {
        std::string problem;
        try {
            state.files.make();
            state.files.remove_leftovers();
            if (scan(state.files.blocks_path(), 0) && tell()) {
                finish();
            }
            return;
        } catch (const std::exception & error) {
            problem = error.what();
        }
        std::unique_lock<std::mutex> held(state.mutex);
        state.indexing.begin(problem);
        state.work.notify_one(); // the writer logs it
        const auto may_go_on = [&] { return state.is_stopping || state.indexing.problem().empty(); };
        state.stop.wait_until(held, state.indexing.retry_at(), may_go_on);
        if (state.is_stopping) {
            return;
        }
    }
}

// Returns false when the store is being closed.
bool indexer::scan(const std::string & path, int level) {
    std::error_code        error;
    fs::directory_iterator it(path, error);
    // below, a directory may vanish or be closed to us; without the first nothing can be found
    if (error && level == 0) {
        throw fs::filesystem_error("cannot read directory", path, error);
    }
    for (; !error && it != fs::directory_iterator(); it.increment(error)) {
        const std::string name = it->path().filename();
        if (level == FILE_LEVEL) {
            look_at(it->path(), name);
            if (found.size() >= BATCH && !tell()) {
                return false;
            }
        } else if (std::error_code ignored; it->is_directory(ignored) && !it->is_symlink(ignored)) {
            if (!scan(it->path(), level + 1)) {
                return false;
            }
        }
    }
    return true;
}

void indexer::look_at(const std::string & path, const std::string & name) {
    const auto key = digest_from_hex(name.substr(0, name.find('.')));
    found_file file;
    file_facts facts;
    if (!key || path != state.files.file_path(*key)) {
        foreign++;
        return;
    }
    read_result result = read_file(path, file.header, facts);
    if (result == read_result::good) {
        const file_header & header = file.header;
        const std::string   proof =
            memory_store::key_of(header.kind, digest_hex(header.parent), header.tokens.data(), header.tokens.size());
        if (header.key != *key || digest_hex(*key) != proof) {
            result = read_result::damaged;
        }
    }
    switch (result) {
        case read_result::good:
            if (file.header.kind == entry_kind::block) {
                longest = std::max(longest, file.header.position / file.header.tokens.size() + 1);
            }
            file.bytes       = facts.bytes;
            file.modified_ns = facts.modified_ns;
            found.push_back(std::move(file));
            break;
        case read_result::damaged:
            damaged++;
            remove_damaged(*key);
            break;
        case read_result::foreign: foreign++; break;
        case read_result::missing:
        case read_result::failed:  break;
    }
}

void indexer::remove_damaged(const digest & key) {
    try {
        state.files.remove(key);
    } catch (const std::system_error &) { // not in the index, it does no harm
    }
}

// Returns false when the store is being closed.
bool indexer::tell() {
    const std::lock_guard<std::mutex> held(state.mutex);
    for (const found_file & file : found) {
        state.entries.add_file(file.header, file.bytes, file.modified_ns);
        keys.push_back(file.header.key);
    }
    found.clear();
    state.entries.counters.bad_checksum += std::exchange(damaged, 0);
    state.entries.counters.foreign_files += std::exchange(foreign, 0);
    return !state.is_stopping;
}

void indexer::finish() {
    size_t done = 0;
    state.in_steps([&] {
        const size_t n = std::min(AT_ONCE / 2, keys.size() - done); // each may lead to a walk to its root
        state.entries.settle_files(keys.data() + done, n);
        done += n;
        return done < keys.size();
    });
    keys = {};
    while (true) {
        session condemned;
        {
            const std::lock_guard<std::mutex> held(state.mutex);
            auto &                            waiting = state.entries.condemned;
            if (waiting.empty()) {
                state.indexing.end();
                state.entries.counters.index_complete = true;
                state.work.notify_all();
                state.progress.notify_all();
                buffer_pool::instance().want_ready(longest); // for whoever comes back to it
                return;
            }
            condemned = std::move(waiting.back());
            waiting.pop_back();
        }
        state.let_go(std::move(condemned), true);
    }
}

} // namespace atlas::memory
