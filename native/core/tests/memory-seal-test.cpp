// Encryption of tier 2: nothing readable on disk, nothing taken that was changed, nothing lost when it is switched on.
#include "memory-test.hpp"

#include "atlas-root-records.hpp"
#include "atlas-seal.hpp"
#include "encryption-mark.hpp"
#include "sealed-entry.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>

namespace fs = std::filesystem;
using namespace memory_test;

static std::shared_ptr<const sealer> sealer_of(char c) {
    std::array<uint8_t, SECRET_BYTES> bytes = {};
    bytes[0]                                = (uint8_t) c;
    return std::make_shared<sealer>(secret_key(bytes), "at rest");
}

static memory_options sealed_options(const std::string & dir, char key = 'k', uint64_t disk_bytes = UNLIMITED_BYTES) {
    memory_options made = options(dir, 0, disk_bytes);
    made.seal           = sealer_of(key);
    return made;
}

static std::string sealed_file_of(const std::string & dir, const std::string & key) {
    return memory::directory(dir, false, sealer_of('k')).file_path(*memory::digest_from_hex(key));
}

static std::string content_of(const fs::path & path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

static std::string bytes_of_tokens(const memory_tokens & tokens) {
    return {reinterpret_cast<const char *>(tokens.data()), tokens.size() * sizeof(int32_t)};
}

static void wait_sealed(const memory_store & store) {
    wait_indexed(store);
    wait_until([&] { return store.stats().plain_files == 0; });
}

// Whether what the entries hold can be found anywhere below the directory, names included.
static bool shows(const std::string & dir, const memory_tokens & tokens, const std::vector<std::string> & keys) {
    const std::string all = bytes_of_tokens(tokens);
    for (const fs::path & path : files_of(dir)) {
        const std::string content = content_of(path);
        for (size_t at = 0; at + 8 <= all.size(); at += 8) {
            if (content.find(all.substr(at, 8)) != std::string::npos) {
                return true;
            }
        }
        for (const std::string & key : keys) {
            const auto data = data_of(key, 64);
            const auto raw  = *memory::digest_from_hex(key);
            if (path.string().find(key.substr(0, 16)) != std::string::npos ||
                content.find(std::string(data.begin(), data.end())) != std::string::npos ||
                content.find(std::string(raw.begin(), raw.end())) != std::string::npos) {
                return true;
            }
        }
    }
    return false;
}

CASE(what_is_encrypted_is_found_again_and_cannot_be_read) {
    const auto               tokens = some_tokens(1, 4 * BLOCK + 5);
    std::vector<std::string> keys;
    {
        memory_store store(sealed_options(dir));
        wait_indexed(store);
        keys = put_all(store, tokens, 3 * SEAL_CHUNK_BYTES + 17);
        flush(store);
        CHECK(find(store, tokens).n_tokens == tokens.size());
        CHECK(store.stats().disk_bytes == bytes_of(dir));
    }
    CHECK(files_of(dir).size() == keys.size() && !shows(dir, tokens, keys));
    memory_store store(sealed_options(dir));
    wait_indexed(store);
    const auto match = find(store, tokens);
    CHECK(match.n_tokens == tokens.size() && match.tier == 2 && store.stats().disk_bytes == bytes_of(dir));
    CHECK(store.stats().bad_checksum == 0 && store.stats().foreign_files == 0 && store.stats().plain_files == 0);
}

CASE(encrypted_entries_of_any_size_are_read) {
    memory_store store(sealed_options(dir));
    wait_indexed(store);
    uint32_t seed = 0;
    for (const size_t n : {(size_t) 0, (size_t) 1, SEAL_CHUNK_BYTES - 1, SEAL_CHUNK_BYTES, SEAL_CHUNK_BYTES + 1,
                           4 * SEAL_CHUNK_BYTES, 4 * SEAL_CHUNK_BYTES + 1, 9 * SEAL_CHUNK_BYTES}) {
        const auto tokens = some_tokens(seed++, BLOCK);
        const auto key    = put_all(store, tokens, n).front();
        flush(store);
        CHECK(find(store, tokens).n_tokens == BLOCK);
        CHECK(fs::file_size(sealed_file_of(dir, key)) == memory::sealed_file_bytes(BLOCK, n));
    }
}

CASE(without_the_key_or_with_another_encrypted_files_stay) {
    const auto tokens = some_tokens(1, 3 * BLOCK);
    {
        memory_store store(sealed_options(dir));
        put_all(store, tokens);
        flush(store);
    }
    for (const bool has_key : {false, true}) {
        memory_store store(has_key ? sealed_options(dir, 'w') : options(dir, 0));
        wait_indexed(store);
        CHECK(find(store, tokens).n_tokens == 0 && store.stats().foreign_files == 3 && store.stats().bad_checksum == 0);
        CHECK(files_of(dir).size() == 3);
    }
    memory_store store(sealed_options(dir));
    wait_indexed(store);
    CHECK(find(store, tokens).n_tokens == 3 * BLOCK);
}

static void check_sealed_damage(const std::string & dir, const std::function<void(const std::string &)> & damage) {
    const auto               tokens = some_tokens(1, 3 * BLOCK);
    std::vector<std::string> keys;
    for (const bool while_open : {true, false}) {
        {
            memory_store store(sealed_options(dir));
            wait_indexed(store);
            keys = put_all(store, tokens, SEAL_CHUNK_BYTES + 1000);
            flush(store);
            damage(sealed_file_of(dir, keys[1]));
            if (while_open) {
                CHECK(find(store, tokens).n_tokens == BLOCK && store.stats().bad_checksum == 1);
                wait_until([&] { return !fs::exists(sealed_file_of(dir, keys[1])); });
            }
        }
        memory_store store(sealed_options(dir));
        wait_indexed(store);
        CHECK(find(store, tokens).n_tokens == BLOCK);
        CHECK(store.stats().bad_checksum == !while_open); // by its header, or by its data
        wait_until([&] { return !fs::exists(sealed_file_of(dir, keys[1])); });
    }
}

static void flip(const std::string & path, size_t offset) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg((std::streamoff) offset);
    const char byte = (char) (file.get() ^ 1);
    file.seekp((std::streamoff) offset);
    file.put(byte);
    CHECK(file.good());
}

CASE(changed_salts_headers_and_data_are_damage) {
    for (const size_t at : {(size_t) 12, (size_t) 32, (size_t) 64, (size_t) 64 + 24, (size_t) 600}) {
        check_sealed_damage(dir, [&](const std::string & path) { flip(path, at); });
    }
    check_sealed_damage(dir, [](const std::string & path) { flip(path, fs::file_size(path) - 1); });
    check_sealed_damage(dir, [](const std::string & path) { flip(path, fs::file_size(path) / 2); });
}

CASE(cut_off_encrypted_files_are_damage) {
    for (const size_t n : {20, 64, 90, 700}) {
        check_sealed_damage(dir, [&](const std::string & path) { fs::resize_file(path, n); });
    }
    const uint64_t begin = sealed_bytes(memory::header_bytes(BLOCK));
    check_sealed_damage(dir, [&](const std::string & path) { fs::resize_file(path, begin); });
    check_sealed_damage(
        dir, [&](const std::string & path) { fs::resize_file(path, begin + SEAL_CHUNK_BYTES + SEAL_TAG_BYTES); });
    check_sealed_damage(dir, [](const std::string & path) { fs::resize_file(path, fs::file_size(path) + 1); });
}

CASE(the_encrypted_file_of_another_entry_is_damage) {
    check_sealed_damage(dir, [&](const std::string & path) {
        for (const auto & other : files_of(dir)) {
            if (other != path) {
                fs::copy_file(other, path, fs::copy_options::overwrite_existing);
                return;
            }
        }
    });
}

CASE(chunks_of_another_entry_are_damage) {
    check_sealed_damage(dir, [&](const std::string & path) {
        const size_t begin = sealed_bytes(memory::header_bytes(BLOCK));
        for (const auto & other : files_of(dir)) {
            if (other != path) {
                const std::string mixed = content_of(path).substr(0, begin) + content_of(other).substr(begin);
                std::ofstream(path, std::ios::binary) << mixed;
                return;
            }
        }
    });
}

CASE(plain_files_are_found_and_replaced_when_encryption_is_switched_on) {
    const auto               tokens = some_tokens(1, 5 * BLOCK + 3), other = some_tokens(2, 2 * BLOCK);
    std::vector<std::string> keys;
    {
        memory_store store(options(dir, 0));
        wait_indexed(store);
        keys = put_all(store, tokens, SEAL_CHUNK_BYTES + 9);
        flush(store);
    }
    const std::string plain    = file_of(dir, keys[0]);
    const timespec    times[2] = {{1700000000, 0}, {1700000000, 0}};
    CHECK(::utimensat(AT_FDCWD, plain.c_str(), times, 0) == 0);
    {
        memory_store store(sealed_options(dir));
        wait_sealed(store);
        CHECK(!fs::exists(plain));
        struct stat info;
        CHECK(::stat(sealed_file_of(dir, keys[0]).c_str(), &info) == 0 && info.st_mtim.tv_sec == 1700000000);
        CHECK(find(store, tokens).n_tokens == tokens.size());
        put_all(store, other);
        flush(store);
        CHECK(store.stats().disk_bytes == bytes_of(dir) && store.stats().bad_checksum == 0);
    }
    CHECK(files_of(dir).size() == keys.size() + 2 && !shows(dir, tokens, keys));
    memory_store store(sealed_options(dir));
    wait_indexed(store);
    CHECK(find(store, tokens).n_tokens == tokens.size() && find(store, other).n_tokens == 2 * BLOCK);
}

CASE(a_crash_between_the_encrypted_file_and_the_plain_one_costs_nothing) {
    const auto               tokens = some_tokens(1, 2 * BLOCK);
    std::vector<std::string> keys;
    {
        memory_store store(sealed_options(dir));
        keys = put_all(store, tokens);
        flush(store);
    }
    {
        memory_store store(options(dir, 0)); // writes the same entries plain beside them
        put_all(store, tokens);
        flush(store);
    }
    CHECK(files_of(dir).size() == 4);
    memory_store store(sealed_options(dir));
    wait_sealed(store);
    CHECK(files_of(dir).size() == 2 && store.stats().disk_entries == 2 && store.stats().disk_bytes == bytes_of(dir));
    CHECK(find(store, tokens).n_tokens == 2 * BLOCK);
}

CASE(budgets_hold_for_encrypted_files) {
    const uint64_t one = memory::sealed_file_bytes(BLOCK, 1000);
    {
        memory_store store(options(dir, 0));
        for (uint32_t i = 0; i < 20; i++) {
            put_all(store, some_tokens(i, BLOCK), 1000);
        }
        flush(store);
    }
    memory_store store(sealed_options(dir, 'k', 5 * one));
    wait_sealed(store);
    for (uint32_t i = 20; i < 40; i++) {
        put_all(store, some_tokens(i, BLOCK), 1000);
        flush(store);
    }
    wait_until([&] { return files_of(dir).size() <= 5; });
    CHECK(store.stats().disk_bytes <= 5 * one && store.stats().disk_bytes == bytes_of(dir));
}

CASE(a_directory_says_by_which_key_it_is_encrypted) {
    const std::string path  = dir + "/deep/memory";
    const auto        check = [&](const std::shared_ptr<const sealer> & seal) {
        try {
            check_encryption_mark(path, seal.get());
        } catch (const std::runtime_error & error) {
            return std::string(error.what());
        }
        return std::string();
    };
    const auto says = [](const std::string & text, const std::string & part) {
        return text.find(part) != std::string::npos;
    };
    CHECK(check(nullptr).empty() && !fs::exists(path));
    CHECK(check(sealer_of('k')).empty() && fs::exists(path + "/encryption"));
    const std::string mark = content_of(path + "/encryption");
    CHECK(check(sealer_of('k')).empty());
    CHECK(says(check(nullptr), path) && says(check(nullptr), "encryption_key_file"));
    CHECK(says(check(sealer_of('w')), path) && says(check(sealer_of('w')), "another key"));
    CHECK(content_of(path + "/encryption") == mark && files_of(path).size() == 1);
    flip(path + "/encryption", mark.size() - 1);
    CHECK(says(check(sealer_of('k')), "damaged"));
    fs::remove(path + "/encryption");
    fs::create_directory(path + "/encryption");
    CHECK(says(check(sealer_of('k')), "cannot read"));
    fs::remove(path + "/encryption");
    std::ofstream(dir + "/file") << "no directory";
    try {
        check_encryption_mark(dir + "/file/memory", sealer_of('k').get());
        CHECK(false);
    } catch (const std::runtime_error & error) {
        CHECK(says(error.what(), "cannot make " + dir + "/file/memory/encryption"));
    }
}

CASE(records_of_roots_are_encrypted_too) {
    root_record record;
    record.root         = root_of(1);
    record.identity     = root_of(2);
    record.environments = {"cpu one"};
    record.model        = "stories.gguf";
    record.settings     = "n_ctx=4096";
    const root_records plain(dir), sealed(dir, sealer_of('k')), wrong(dir, sealer_of('w'));
    plain.add(record);
    CHECK(content_of(dir + "/roots/" + record.root).find("stories.gguf") != std::string::npos);
    CHECK(sealed.read().size() == 1 && sealed.read()[0].model == "stories.gguf"); // and replaces what was plain
    record.environments = {"cpu two"};
    sealed.add(record);
    const std::string content = content_of(dir + "/roots/" + record.root);
    for (const char * part : {"stories", "n_ctx", "cpu", record.identity.c_str()}) {
        CHECK(content.find(part) == std::string::npos);
    }
    const auto found = sealed.read();
    CHECK(found.size() == 1 && found[0].environments == std::vector<std::string>({"cpu one", "cpu two"}));
    CHECK(found[0].identity == record.identity && found[0].settings == "n_ctx=4096");
    CHECK(plain.read().empty() && wrong.read().empty() && files_of(dir).size() == 1);
}
