#include "memory-test.hpp"

#include "directory.hpp"

#include <algorithm>
#include <fstream>
#include <random>

namespace fs = std::filesystem;

namespace memory_test {

memory_options options(const std::string & dir, uint64_t ram_bytes, uint64_t disk_bytes) {
    memory_options options;
    options.path         = dir;
    options.ram_bytes    = ram_bytes;
    options.disk_bytes   = disk_bytes;
    options.block_tokens = BLOCK;
    options.sync_each    = false;
    return options;
}

std::string root_of(int n) { return memory_store::key_of(entry_kind::block, "root", &n, 1); }

const std::string ROOT = root_of(0);

memory_tokens some_tokens(uint32_t seed, size_t n) {
    std::minstd_rand random(seed + 1);
    memory_tokens    tokens(n);
    for (auto & token : tokens) {
        token = (int32_t) (random() % 32000);
    }
    return tokens;
}

// What an entry holds follows from its key, so that every reader can check it.
state_bytes data_of(const std::string & key, size_t n_bytes) {
    std::mt19937 random((uint32_t) std::stoul(key.substr(0, 8), nullptr, 16));
    state_bytes  data(n_bytes);
    for (auto & byte : data) {
        byte = (uint8_t) random();
    }
    return data;
}

memory_entry make_entry(entry_kind kind, const std::string & parent, const memory_tokens & tokens, size_t n_bytes) {
    memory_entry entry;
    entry.kind   = kind;
    entry.parent = parent;
    entry.tokens = tokens;
    entry.data   = data_of(memory_store::key_of(kind, parent, tokens.data(), tokens.size()), n_bytes);
    return entry;
}

std::string put(memory_store & store, entry_kind kind, const std::string & parent, const memory_tokens & tokens,
                size_t n_bytes, const std::string & supersedes) {
    const std::string key = store.put(make_entry(kind, parent, tokens, n_bytes), supersedes);
    CHECK(key == memory_store::key_of(kind, parent, tokens.data(), tokens.size()));
    return key;
}

memory_tokens slice(const memory_tokens & tokens, size_t begin, size_t end) {
    return {tokens.begin() + begin, tokens.begin() + end};
}

// Puts a conversation as blocks and a tail; returns their keys.
std::vector<std::string> put_all(memory_store & store, const memory_tokens & tokens, size_t n_bytes) {
    std::vector<std::string> keys;
    for (size_t begin = 0; begin < tokens.size(); begin += BLOCK) {
        const bool is_full = begin + BLOCK <= tokens.size();
        keys.push_back(put(store, is_full ? entry_kind::block : entry_kind::tail, keys.empty() ? ROOT : keys.back(),
                           slice(tokens, begin, is_full ? begin + BLOCK : tokens.size()), n_bytes));
    }
    return keys;
}

// Finds, and checks whatever is found.
memory_match find(memory_store & store, const memory_tokens & tokens, bool need_checkpoint, const std::string & root) {
    const memory_match match  = store.find(root, tokens.data(), tokens.size(), need_checkpoint);
    std::string        parent = root;
    size_t             begin  = 0;
    CHECK(match.n_tokens <= tokens.size());
    CHECK((match.tier == 0) == (match.n_tokens == 0));
    CHECK((match.checkpoint != nullptr) == (need_checkpoint && match.n_tokens > 0));
    CHECK(match.blocks.size() == (match.n_tokens + BLOCK - 1) / BLOCK);
    for (const auto & entry : match.blocks) {
        const size_t n = std::min(entry->tokens.size(), match.n_tokens - begin);
        CHECK(entry->parent == parent && entry->data == data_of(entry->key, entry->data.size()));
        CHECK(slice(entry->tokens, 0, n) == slice(tokens, begin, begin + n));
        begin += n;
        parent = entry->key;
    }
    CHECK(begin == match.n_tokens);
    if (match.checkpoint) {
        const auto & checkpoint = *match.checkpoint;
        const size_t n          = checkpoint.tokens.size();
        const size_t i          = (match.n_tokens - n) / BLOCK;
        CHECK(checkpoint.parent == (i == 0 ? root : match.blocks[i - 1]->key) && i * BLOCK + n == match.n_tokens);
        CHECK(checkpoint.tokens == slice(tokens, match.n_tokens - n, match.n_tokens));
        CHECK(checkpoint.data == data_of(checkpoint.key, checkpoint.data.size()));
    }
    return match;
}

void wait_indexed(const memory_store & store) {
    wait_until([&] { return store.stats().index_complete; });
}

void flush(memory_store & store) { CHECK(store.flush(60).complete); }

std::vector<fs::path> files_of(const std::string & dir) {
    std::vector<fs::path> files;
    for (const auto & entry : fs::recursive_directory_iterator(dir)) {
        if (entry.is_regular_file()) {
            files.push_back(entry.path());
        }
    }
    return files;
}

uint64_t bytes_of(const std::string & dir) {
    uint64_t n_bytes = 0;
    for (const auto & path : files_of(dir)) {
        std::error_code vanished; // while the writer works
        const auto      size = fs::file_size(path, vanished);
        n_bytes += vanished ? 0 : size;
    }
    return n_bytes;
}

std::string file_of(const std::string & dir, const std::string & key) {
    return memory::directory(dir, false).file_path(*memory::digest_from_hex(key));
}

std::string write_file(const std::string & dir, memory::file_header header, size_t n_bytes) {
    const std::string key  = memory_store::key_of(header.kind, memory::digest_hex(header.parent), header.tokens.data(),
                                                  header.tokens.size());
    const auto        data = data_of(key, n_bytes);
    header.key             = *memory::digest_from_hex(key);
    header.data_bytes      = data.size();
    header.data_checksum   = memory::checksum(data.data(), data.size());
    const auto start       = memory::encode_header(header);
    fs::create_directories(fs::path(file_of(dir, key)).parent_path());
    std::ofstream file(file_of(dir, key), std::ios::binary);
    file.write(reinterpret_cast<const char *>(start.data()), (std::streamsize) start.size());
    file.write(reinterpret_cast<const char *>(data.data()), (std::streamsize) data.size());
    CHECK(file.flush().good());
    return key;
}

void put_away(const std::string & path) {
    fs::rename(path, path + ".away");
    std::ofstream(path) << "in the way";
}

void bring_back(const std::string & path) {
    fs::create_directory_symlink(path + ".away", path + ".link");
    fs::rename(path + ".link", path);
}

} // namespace memory_test
