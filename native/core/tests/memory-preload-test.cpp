// What comes back into RAM after a start, before anybody asks for it.
#include "memory-test.hpp"

#include "entry-file.hpp"

#include <sys/stat.h>

#include <fstream>

namespace fs = std::filesystem;
using namespace memory_test;

static const uint64_t ENTRY = 1000 + BLOCK * sizeof(int32_t); // in RAM

static memory_options preloading(const std::string & dir, uint64_t bytes, uint64_t ram_bytes = 64 * MiB) {
    memory_options given = options(dir, ram_bytes);
    given.preload_bytes  = bytes;
    return given;
}

// Gives the files of a chain the time `age_s` seconds ago.
static void set_age(const std::string & dir, const std::vector<std::string> & keys, int age_s) {
    for (const std::string & key : keys) {
        fs::last_write_time(file_of(dir, key), fs::file_time_type::clock::now() - std::chrono::seconds(age_s));
    }
}

static memory_stats preload(memory_store & store, const std::vector<std::string> & roots = {ROOT}) {
    store.preload(roots);
    wait_until([&] { return store.stats().preload_complete; });
    return store.stats();
}

// Conversations of three blocks; of these ages in seconds.
static std::vector<memory_tokens> store_conversations(const std::string & dir, const std::vector<int> & ages) {
    memory_store               store(options(dir));
    std::vector<memory_tokens> conversations;
    for (const int age_s : ages) {
        conversations.push_back(some_tokens(conversations.size() + 1, 3 * BLOCK));
        const auto keys = put_all(store, conversations.back());
        flush(store);
        set_age(dir, keys, age_s);
    }
    return conversations;
}

CASE(preloads_what_was_used_last) {
    const auto   told = store_conversations(dir, {300, 100, 200});
    memory_store store(preloading(dir, 6 * ENTRY));
    const auto   stats = preload(store);
    CHECK(stats.preloaded_entries == 6 && stats.ram_entries == 6 && stats.preloaded_bytes == 6 * ENTRY);
    CHECK(stats.ram_bytes == 6 * ENTRY);
    CHECK(find(store, told[1]).tier == 1);
    CHECK(find(store, told[2]).tier == 1);
    CHECK(find(store, told[0]).tier == 2 && find(store, told[0]).n_tokens == 3 * BLOCK);
}

CASE(preloads_beginnings_where_not_all_fits) {
    const auto   told = store_conversations(dir, {200, 100});
    memory_store store(preloading(dir, 5 * ENTRY));
    CHECK(preload(store).preloaded_entries == 5);
    CHECK(find(store, told[1]).tier == 1);
    CHECK(find(store, slice(told[0], 0, 2 * BLOCK)).tier == 1);
    CHECK(find(store, told[0]).tier == 2);
}

CASE(preloads_no_more_than_half_of_ram) {
    store_conversations(dir, {100, 200});
    memory_store store(preloading(dir, 64 * MiB, 8 * ENTRY));
    CHECK(preload(store).ram_entries == 4);
}

CASE(preloads_nothing_without_a_size) {
    store_conversations(dir, {100});
    memory_store store(options(dir));
    const auto   stats = preload(store);
    CHECK(stats.preloaded_entries == 0 && stats.ram_entries == 0 && stats.read_entries == 0);
}

CASE(preloads_what_these_roots_lead_to) {
    const auto   told = store_conversations(dir, {100});
    memory_store store(preloading(dir, MiB));
    CHECK(preload(store, {root_of(1), "no key"}).ram_entries == 0);
    CHECK(find(store, told[0]).tier == 2);
}

CASE(preloads_checkpoints_and_tails) {
    const auto tokens = some_tokens(1, 2 * BLOCK + 5);
    {
        memory_store store(options(dir));
        const auto   keys = put_all(store, tokens);
        put(store, entry_kind::checkpoint, keys[1], slice(tokens, 2 * BLOCK, tokens.size()));
        flush(store);
    }
    memory_store store(preloading(dir, MiB));
    CHECK(preload(store).ram_entries == 4);
    const auto match = find(store, tokens, true);
    CHECK(match.tier == 1 && match.n_tokens == tokens.size());
}

CASE(preloads_the_last_checkpoint_only) {
    const auto tokens = some_tokens(1, 3 * BLOCK);
    {
        memory_store store(options(dir));
        const auto   keys = put_all(store, tokens);
        put(store, entry_kind::checkpoint, keys[0], {});
        put(store, entry_kind::checkpoint, keys[1], {});
        put(store, entry_kind::checkpoint, keys[2], {});
        flush(store);
    }
    memory_store store(preloading(dir, 5 * ENTRY));
    CHECK(preload(store).ram_entries <= 5);
    CHECK(find(store, tokens, true).tier == 1 && find(store, tokens, true).n_tokens == 3 * BLOCK);
    CHECK(find(store, slice(tokens, 0, BLOCK + 1), true).tier == 2); // the one that is on the way to it
}

CASE(preloading_is_no_use) {
    const auto told     = store_conversations(dir, {100, 50});
    const auto times_of = [&](const memory_tokens & tokens) {
        std::vector<fs::file_time_type> times;
        std::string                     key = ROOT;
        for (size_t i = 0; i < tokens.size(); i += BLOCK) {
            key = memory_store::key_of(entry_kind::block, key, tokens.data() + i, BLOCK);
            times.push_back(fs::last_write_time(file_of(dir, key)));
        }
        return times;
    };
    const auto   before = times_of(told[0]), before_other = times_of(told[1]);
    memory_store store(preloading(dir, MiB, 8 * ENTRY));
    store.take_events(0);
    CHECK(preload(store).ram_entries == 4 && store.take_events(100).empty());
    CHECK(times_of(told[0]) == before && times_of(told[1]) == before_other);
    // who asks for it uses it
    CHECK(find(store, told[1]).tier == 1 && !store.take_events(100).empty());
    CHECK(times_of(told[0]) == before);
    for (const auto & time : times_of(told[1])) {
        CHECK(time > before_other.back());
    }
    // what is new takes the place of what nobody has asked for
    const auto fresh = some_tokens(9, 5 * BLOCK);
    put_all(store, fresh);
    CHECK(find(store, fresh).tier == 1 && find(store, told[1]).tier == 1 && find(store, told[0]).tier == 2);
}

CASE(preloading_goes_on_after_a_file_that_cannot_be_read) {
    const auto   told = store_conversations(dir, {100, 200});
    memory_store store(preloading(dir, MiB));
    wait_indexed(store);
    const std::string last = file_of(dir, memory_store::key_of(entry_kind::block, ROOT, told[0].data(), BLOCK));
    fs::rename(last, last + ".away");
    fs::create_symlink(last + ".away", last); // the system refuses to follow it
    const auto stats = preload(store);
    CHECK(stats.read_failures == 1 && stats.preloaded_entries == 3);
    CHECK(stats.disk_problem.empty()); // nobody had asked for it
    CHECK(find(store, told[1]).tier == 1);
    fs::remove(last);
    fs::rename(last + ".away", last);
    CHECK(find(store, told[0]).tier == 2 && find(store, told[0]).n_tokens == 3 * BLOCK);
}

CASE(preloading_meets_a_damaged_file) {
    const auto told = store_conversations(dir, {100, 200});
    for (const auto & path : files_of(dir)) {
        if (path.string() == file_of(dir, memory_store::key_of(entry_kind::block, ROOT, told[0].data(), BLOCK))) {
            fs::resize_file(path, fs::file_size(path) - 1);
            std::ofstream(path, std::ios::app) << '?'; // of the right size, so that only the data tells
        }
    }
    memory_store store(preloading(dir, MiB));
    const auto   stats = preload(store);
    CHECK(stats.bad_checksum == 1 && stats.ram_entries == 3);
    CHECK(find(store, told[1]).tier == 1);
    CHECK(find(store, told[0]).n_tokens == 0);
}

CASE(preloading_stops_with_the_store) {
    const auto told = store_conversations(dir, {100});
    for (int i = 0; i < 50; i++) {
        memory_store store(preloading(dir, MiB));
        store.preload({ROOT});
    }
    memory_store busy(preloading(dir, MiB));
    busy.set_busy(true);
    CHECK(preload(busy).ram_entries == 3);
    CHECK(find(busy, told[0]).tier == 1);
}
