// A directory as a tier: what is there, what is too old, and a file system that hangs.
#include "bounded-work.hpp"
#include "cases.hpp"
#include "directory-tier.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <future>

namespace fs = std::filesystem;
using namespace atlas;
using namespace std::chrono_literals;

namespace {

constexpr uint64_t MAX_BYTES = 1000;

tier_deadline soon() { return tier_clock::now() + 60s; }

std::string key_of(const std::string & digits) {
    return "atlas:1:0123456789abcdef:" + digits + std::string(64 - digits.size(), '0');
}

std::string path_of(const std::string & dir, const std::string & digits) {
    const std::string name = digits + std::string(64 - digits.size(), '0');
    return dir + "/blocks/" + name.substr(0, 2) + "/" + name.substr(2, 2) + "/" + name + ".kv";
}

std::string get(tier & from, const std::string & key) {
    std::string found = "(none)";
    from.get({key}, soon(), [&](size_t, const tier_value & value) {
        found = value.bytes;
        return true;
    });
    return found;
}

template <typename F> tier_failure failure_of(F action) {
    try {
        action();
    } catch (const tier_error & error) {
        return error.kind;
    }
    CHECK(!"it did not fail");
    std::abort();
}

} // namespace

CASE(directory_tier_stores_and_finds) {
    directory_tier at(dir, MAX_BYTES, false);
    at.ping(soon());
    const std::vector<std::string> keys = {key_of("00aa"), key_of("ffee"), key_of("00ab")};
    at.put(keys[0], {"one ", "value"}, 1h, soon());
    at.put(keys[2], {"another"}, 1h, soon());
    CHECK(at.probe(keys, soon()) == (std::vector<bool>{true, false, true}));
    CHECK(get(at, keys[0]) == "one value" && get(at, keys[1]) == "(none)");
    size_t n_taken = 0;
    at.get(keys, soon(), [&](size_t i, const tier_value &) { return n_taken++ == i; });
    CHECK(n_taken == 1); // it ends at the first that is missing
    CHECK(at.keep(keys, 1h, soon()) == (std::vector<bool>{true, false, true}));
    at.remove(keys, soon());
    CHECK(at.probe(keys, soon()) == (std::vector<bool>{false, false, false}));
    CHECK(at.counts().writes == 2 && at.counts().written_bytes == 16 && at.counts().reads == 2);
    CHECK(at.traits().address == "file://" + dir && fs::is_empty(dir + "/tmp"));
    struct stat info;
    CHECK(::stat((dir + "/blocks").c_str(), &info) == 0 && (info.st_mode & 0777) == 0700);
}

// Many at a time are asked for by several threads.
CASE(directory_tier_probes_many) {
    directory_tier           at(dir, MAX_BYTES, false);
    std::vector<std::string> keys;
    for (int i = 0; i < 500; i++) {
        keys.push_back(key_of(std::to_string(1000 + i)));
        if (i % 7 == 0) {
            at.put(keys.back(), {"value"}, 1h, soon());
        }
    }
    const auto has = at.probe(keys, soon());
    for (size_t i = 0; i < keys.size(); i++) {
        CHECK(has[i] == (i % 7 == 0));
    }
}

CASE(directory_tier_removes_what_is_old) {
    directory_tier at(dir, MAX_BYTES, false);
    at.put(key_of("ff"), {"value"}, 1h, soon()); // makes the directories, and looks into the first
    for (const char * digits : {"01aa", "01bb"}) {
        fs::create_directories(fs::path(path_of(dir, digits)).parent_path());
        std::ofstream(path_of(dir, digits)) << "value";
    }
    std::ofstream(dir + "/blocks/01/aa/notes.txt") << "somebody's";
    for (const std::string & path : {path_of(dir, "01aa"), dir + "/blocks/01/aa/notes.txt"}) {
        const timespec long_ago[2] = {{1000, 0}, {1000, 0}};
        CHECK(::utimensat(AT_FDCWD, path.c_str(), long_ago, 0) == 0);
    }
    directory_tier later(dir, MAX_BYTES, false);
    later.put(key_of("fe"), {"value"}, 1h, soon());
    CHECK(fs::exists(path_of(dir, "01aa"))); // this one began with 00
    fs::rename(dir + "/blocks/01", dir + "/blocks/00");
    directory_tier last(dir, MAX_BYTES, false);
    last.put(key_of("fd"), {"value"}, 1h, soon());
    CHECK(!fs::exists(dir + "/blocks/00/aa/" + fs::path(path_of(dir, "01aa")).filename().string()));
    CHECK(fs::exists(dir + "/blocks/00/aa/notes.txt"));
    CHECK(fs::exists(dir + "/blocks/00/bb/" + fs::path(path_of(dir, "01bb")).filename().string()));
}

CASE(directory_tier_reads_no_link_and_nothing_too_large) {
    directory_tier at(dir, MAX_BYTES, false);
    at.put(key_of("00aa"), {"value"}, 1h, soon());
    at.put(key_of("00ab"), {std::string(MAX_BYTES + 1, 'x')}, 1h, soon());
    CHECK(get(at, key_of("00ab")).empty()); // there, and nothing that anybody could take for a value
    at.limit_values(4);
    CHECK(get(at, key_of("00aa")).empty());
    at.limit_values(UINT64_MAX);
    CHECK(get(at, key_of("00aa")) == "value" && get(at, key_of("00ab")).empty());
    std::ofstream(dir + "/elsewhere") << "secret";
    fs::remove(path_of(dir, "00aa"));
    fs::create_symlink(dir + "/elsewhere", path_of(dir, "00aa"));
    CHECK(!at.probe({key_of("00aa")}, soon())[0]);
    CHECK(get(at, key_of("00aa")) == "(none)");
}

CASE(directory_tier_that_is_gone) {
    directory_tier at(dir + "/mount", MAX_BYTES, false);
    const auto     key = key_of("00aa");
    CHECK(failure_of([&] { at.ping(soon()); }) == tier_failure::unreachable);
    CHECK(failure_of([&] { at.probe({key}, soon()); }) == tier_failure::unreachable);
    CHECK(failure_of([&] { get(at, key); }) == tier_failure::unreachable);
    CHECK(failure_of([&] { at.put(key, {"value"}, 1h, soon()); }) == tier_failure::unreachable);
    CHECK(failure_of([&] { at.keep({key}, 1h, soon()); }) == tier_failure::unreachable);
    CHECK(failure_of([&] { at.remove({key}, soon()); }) == tier_failure::unreachable);
    CHECK(!fs::exists(dir + "/mount")); // it may be a mount that comes back
    fs::create_directory(dir + "/mount");
    at.put(key, {"value"}, 1h, soon());
    CHECK(get(at, key) == "value");
}

// What hangs is left behind, and soon nothing more is begun.
CASE(bounded_work_that_hangs) {
    std::promise<void>  hangs;
    std::atomic<size_t> n_begun{0};
    {
        const bounded_work on(2);
        const auto         future = hangs.get_future().share();
        const auto         wait   = [&] {
            on.run(
                [&n_begun, future] {
                    n_begun++;
                    future.wait();
                },
                tier_clock::now() + 20ms, "it took too long");
        };
        CHECK(failure_of(wait) == tier_failure::late && failure_of(wait) == tier_failure::late);
        cases::wait_until([&] { return n_begun == 2; }); // on a busy machine a thread begins late
        CHECK(failure_of(wait) == tier_failure::late && n_begun == 2);
        hangs.set_value();
        cases::wait_until([&] {
            try {
                on.run([] {}, soon(), "it took too long");
                return true;
            } catch (const tier_error &) {
                return false;
            }
        });
    }
    CHECK(failure_of([] { bounded_work(1).run([] { throw tier_error(tier_failure::full, "full"); }, soon(), ""); }) ==
          tier_failure::full);
}

// Beside state, and never in its way.
CASE(directory_tier_has_records_in_places_of_their_own) {
    directory_tier    at(dir, MAX_BYTES, false);
    const std::string owner(64, 'a');
    const auto        key = record_key(owner, "turn.0");
    CHECK(at.create(key, "value", soon()) && !at.create(key, "other", soon()));
    CHECK(fs::exists(dir + "/records/aa/" + owner + "/turn.0") && !fs::exists(dir + "/blocks") &&
          fs::is_empty(dir + "/tmp"));
    at.add_name(NAMES_OF_SESSIONS, owner, soon());
    CHECK(fs::exists(dir + "/names/sessions/aa/" + owner));
    std::ofstream(dir + "/names/sessions/aa/notes.txt") << "somebody's";
    CHECK(at.names(NAMES_OF_SESSIONS, "", 10, soon()) == std::vector<std::string>{owner});
    // What is no key of a record, or would lead elsewhere, is none.
    for (const char * part : {"../../turn", "", ".turn", "turn/0", "TURN"}) {
        CHECK(failure_of([&] { at.create(record_key(owner, part), "value", soon()); }) != tier_failure::late);
    }
    std::ofstream(dir + "/records/aa/" + owner + "/turn.1") << std::string(MAX_BYTES + 1, 'x');
    CHECK(get(at, record_key(owner, "turn.1")).empty()); // wrong, and none of its bytes
    at.remove({key}, soon());
    CHECK(get(at, key) == "(none)");
}
