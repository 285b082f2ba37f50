#include "indexer.hpp"

#include "buffer-pool.hpp"
#include "plain-files.hpp"
#include "sealed-entry.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <system_error>
#include <utility>

namespace atlas::memory {

constexpr size_t BATCH      = 64; // files told to the catalog at once
constexpr int    FILE_LEVEL = 2;  // directories between blocks/ and a file

void indexer::run() {
    while (true) {
        std::string problem; // stays empty where there was no memory, which is no trouble with the disk
        try {
            state.files.make();
            state.files.remove_leftovers();
            if (scan(state.files.blocks_path(), 0) && tell()) {
                finish();
            }
            if (!plain.empty() && !state.is_closing()) {
                seal_plain_files(state, plain);
            }
            return;
        } catch (const std::bad_alloc &) {
        } catch (const std::exception & error) {
            problem = reason_of(error);
        }
        found.clear(); // the next try finds these files again
        plain.clear();
        std::unique_lock<std::mutex> held(state.mutex);
        if (problem.empty()) {
            state.stop.wait_for(held, NO_MEMORY_PAUSE, [&] { return state.is_stopping; });
        } else {
            state.indexing.begin(std::move(problem));
            state.work.notify_one(); // the writer logs it
            const auto may_go_on = [&] { return state.is_stopping || state.indexing.problem().empty(); };
            state.stop.wait_until(held, state.indexing.retry_at(), may_go_on);
        }
        if (state.is_stopping) {
            return;
        }
    }
}

// Returns false when the store is being closed.
bool indexer::scan(const std::string & path, int level) {
    try {
        return for_names_in(path, [&](const std::string & name) {
            const std::string below = path + "/" + name;
            if (level < FILE_LEVEL) {
                struct stat info;
                const bool  is_directory = ::lstat(below.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
                return !is_directory || scan(below, level + 1);
            }
            look_at(below, name);
            return found.size() < BATCH || tell();
        });
    } catch (const std::system_error &) {
        if (level == 0) { // nothing can be found
            throw;
        }
        return true; // a directory below may vanish, or this user may not read it
    }
}

void indexer::look_at(const std::string & path, const std::string & name) {
    const auto called = digest_from_hex(name.substr(0, name.find('.')));
    found_file file;
    file_facts facts;
    if (!called || path != state.files.path_of_name(*called)) {
        foreign++;
        return;
    }
    const bool  seals  = state.files.seals_by() != nullptr;
    read_result result = read_file(path, file.header, facts, nullptr, state.files.seals_by().get());
    if (result == read_result::good) {
        const file_header & header = file.header;
        const std::string   proof =
            memory_store::key_of(header.kind, digest_hex(header.parent), header.tokens.data(), header.tokens.size());
        const digest right = facts.is_sealed ? state.files.name_of(header.key) : header.key;
        if (right != *called || digest_hex(header.key) != proof) {
            result = read_result::damaged;
        }
    }
    switch (result) {
        case read_result::good:
            if (file.header.kind == entry_kind::block) {
                longest = std::max(longest, file.header.position / file.header.tokens.size() + 1);
            }
            file.bytes = facts.bytes;
            if (seals && !facts.is_sealed) {
                file.bytes = sealed_file_bytes(file.header.tokens.size(), file.header.data_bytes); // as it will be soon
                plain.push_back(file.header.key);
            }
            file.modified_ns = facts.modified_ns;
            found.push_back(std::move(file));
            break;
        case read_result::damaged:
            damaged++;
            remove_damaged(path);
            break;
        case read_result::foreign: foreign++; break;
        case read_result::missing:
        case read_result::failed:  break;
    }
}

void indexer::remove_damaged(const std::string & path) {
    try {
        state.files.remove_file(path);
    } catch (const std::system_error &) { // the file stays; it is not in the index, so no lookup reads it
    }
}

// Returns false when the store is being closed.
bool indexer::tell() {
    std::unique_lock<std::mutex> held(state.mutex);
    for (const found_file & file : found) {
        state.entries.add_file(file.header, file.bytes, file.modified_ns);
        keys.push_back(file.header.key);
    }
    found.clear();
    state.entries.counters.bad_checksum += std::exchange(damaged, 0);
    state.entries.counters.foreign_files += std::exchange(foreign, 0);
    state.entries.counters.plain_files = plain.size();
    while (!state.is_stopping && state.entries.is_index_full()) {
        state.work.notify_one(); // the writer makes room, once the sessions of the last run are known
        state.progress.wait_for(held, std::chrono::milliseconds(100));
    }
    return !state.is_stopping;
}

void indexer::finish() {
    size_t done = 0;
    state.in_steps([&] {
        const size_t n = std::min(AT_ONCE / 2, keys.size() - done); // half, as each may take a walk to its root
        state.entries.update_files(keys.data() + done, n);
        done += n;
        return done < keys.size();
    });
    keys = {};
    while (true) {
        session awaiting_delete;
        {
            const std::lock_guard<std::mutex> held(state.mutex);
            auto &                            waiting = state.entries.awaiting_delete;
            if (waiting.empty()) {
                state.indexing.end();
                state.entries.counters.index_complete = true;
                state.work.notify_all();
                state.progress.notify_all();
                buffer_pool::instance().want_ready(longest); // for a request that continues that conversation
                return;
            }
            awaiting_delete = std::move(waiting.back());
            waiting.pop_back();
        }
        state.unref(std::move(awaiting_delete), true);
    }
}

} // namespace atlas::memory
