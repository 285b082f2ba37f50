#include "atlas-file-hashing.hpp"
#include "cases.hpp"

#include <atomic>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace fs = std::filesystem;

using atlas::file_hashing;
using cases::wait_until;

constexpr uint64_t ALL = UINT64_MAX; // for wait(): whatever is left

static void write_file(const std::string & path, const std::string & text) {
    std::ofstream(path, std::ios::binary) << text;
}

static std::string read_file(const std::string & path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

static std::string hash_of(const std::string & path, const std::string & cache = "") {
    const file_hashing hashing({path}, cache);
    hashing.wait(ALL);
    CHECK(hashing.progress().problem.empty());
    return hashing.hashes().at(0);
}

static std::string problem_of(const std::string & path) {
    const file_hashing hashing({path}, "");
    hashing.wait(ALL);
    CHECK(hashing.progress().is_done && hashing.hashes().empty());
    return hashing.progress().problem;
}

CASE(file_hashing_counts_every_byte) {
    const std::string path = dir + "/file";
    std::string       bytes((3 << 20) + 5, 'a'); // three pieces and a bit
    write_file(path, bytes);
    const std::string before = hash_of(path);
    CHECK(before.size() == 32);
    for (const size_t at : {size_t{0}, bytes.size() / 2, bytes.size() - 1}) {
        bytes[at] ^= 1;
        write_file(path, bytes);
        CHECK(hash_of(path) != before);
        bytes[at] ^= 1;
    }
    write_file(path, bytes);
    CHECK(hash_of(path) == before);
    write_file(path, "");
    CHECK(hash_of(path).size() == 32);
}

CASE(file_hashing_names_what_cannot_be_hashed) {
    CHECK(hash_of(dir + "/none") == "missing");
    CHECK(problem_of(dir) == "cannot read " + dir + ": it is no regular file");
    write_file(dir + "/file", "a");
    CHECK(hash_of(dir + "/file/below") == "missing");
    fs::create_symlink("loop", dir + "/loop");
    CHECK(problem_of(dir + "/loop").find("cannot read " + dir + "/loop: ") == 0);
}

CASE(file_hashing_knows_whether_a_file_is_still_the_same) {
    const std::string path = dir + "/file", other = dir + "/other";
    write_file(path, "aaaa");
    write_file(other, "aaab");
    const file_hashing hashing({path}, "");
    hashing.wait(ALL);
    CHECK(hashing.is_of({path}));
    CHECK(!hashing.is_of({other}));
    CHECK(!hashing.is_of({path, other}));
    fs::last_write_time(other, fs::last_write_time(path));
    fs::rename(other, path);
    CHECK(!hashing.is_of({path}));
}

// The program itself, which nobody writes to: what was changed a moment ago is not remembered.
static std::string old_file() { return fs::read_symlink("/proc/self/exe"); }

static std::string hash_until_remembered(const std::string & cache) {
    std::string hash;
    wait_until([&] {
        hash = hash_of(old_file(), cache);
        return fs::exists(cache);
    });
    return hash;
}

CASE(file_hashing_remembers) {
    const std::string cache = dir + "/model-hashes";
    const std::string hash  = hash_until_remembered(cache);
    const std::string line  = read_file(cache);
    CHECK(line.find(hash) != std::string::npos);
    const file_hashing again({old_file()}, cache);
    CHECK(again.progress().is_done && again.progress().total == 0);
    CHECK(again.hashes().at(0) == hash);
    CHECK(read_file(cache) == line);
}

CASE(file_hashing_does_not_remember_what_was_just_changed) {
    const std::string path = dir + "/file", cache = dir + "/model-hashes";
    write_file(path, "aaaa");
    fs::last_write_time(path, fs::file_time_type::clock::now() + std::chrono::hours(1)); // however long this takes
    hash_of(path, cache);
    CHECK(!fs::exists(cache));
}

CASE(file_hashing_believes_no_damaged_line) {
    const std::string cache = dir + "/model-hashes";
    const std::string hash  = hash_until_remembered(cache);
    const std::string whole = read_file(cache);
    for (size_t at = 1; at + 1 < whole.size(); at++) { // all but the line's ends
        std::string damaged   = whole;
        damaged[at]           = damaged[at] == '1' ? '2' : '1';
        const std::string own = cache + std::to_string(at); // as what was begun before may still write
        write_file(own, damaged);
        const file_hashing hashing({old_file()}, own);
        CHECK(hashing.progress().total == fs::file_size(old_file()));
    }
    for (const std::string & damaged : {whole.substr(0, whole.size() / 2), whole + whole.substr(0, 40),
                                        std::string(100'000, 'x'), std::string(1000, '\0'), std::string("\n\n\n")}) {
        write_file(cache, damaged);
        CHECK(hash_of(old_file(), cache) == hash);
        const file_hashing again({old_file()}, cache);
        CHECK(again.progress().total == 0 && again.hashes().at(0) == hash);
        CHECK(fs::file_size(cache) <= 1 << 16);
    }
}

CASE(file_hashing_calls_once_when_it_is_done) {
    write_file(dir + "/file", "a");
    std::atomic<int> n_calls{0};
    file_hashing     hashing({dir + "/file"}, "");
    hashing.then([&] { n_calls++; });
    wait_until([&] { return n_calls == 1; });
    hashing.then([&] { n_calls++; });
    CHECK(n_calls == 2);
    hashing.give_up();
    hashing.then([&] { n_calls++; });
    CHECK(n_calls == 2);
}
