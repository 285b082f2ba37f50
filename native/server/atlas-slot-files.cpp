#include "atlas-slot-files.h"

#include "atlas-log.hpp"
#include "hash/xxhash/xxhash.h"
#include "server-common.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <system_error>
#include <vector>

#undef llama_state_seq_save_file // llama.cpp's own writes its part

namespace fs = std::filesystem;

namespace {

using bytes = std::vector<char>;

constexpr char MAGIC[8] = {'A', 'T', 'L', 'A', 'S', 'S', 'L', '1'};

// The end of a file of ours, in the machine's byte order, as llama.cpp's part.
struct trailer {
    char     magic[sizeof(MAGIC)];
    uint64_t model;    // model_of()
    uint64_t n_bytes;  // before the trailer
    uint64_t checksum; // of those, and of the trailer up to here
};

// The beginning of llama.cpp's part; tokens and state follow.
struct header {
    uint32_t magic;
    uint32_t version;
    uint32_t n_tokens;
};

// Of the model's metadata. Two models that have all of it in common, and their shape, are taken for one.
uint64_t model_of(llama_context * ctx) {
    const llama_model * model = llama_get_model(ctx);

    std::string text = std::to_string(llama_model_n_params(model)) + " " + std::to_string(llama_model_size(model));
    for (int i = 0; i < llama_model_meta_count(model); i++) {
        for (const auto get : {llama_model_meta_key_by_index, llama_model_meta_val_str_by_index}) {
            const int   length = get(model, i, nullptr, 0);
            std::string value(length < 0 ? 0 : length + 1, '\0');
            get(model, i, value.data(), value.size());
            text += "\n" + value;
        }
    }
    return XXH3_64bits(text.data(), text.size());
}

uint64_t checksum_of(const bytes & content, size_t n_bytes) { return XXH3_64bits(content.data(), n_bytes); }

bytes read_file(const std::string & path, size_t n_at_most = SIZE_MAX) {
    if (!fs::is_regular_file(path)) {
        throw std::runtime_error("there is no such file");
    }
    std::ifstream file(path, std::ios::binary);
    bytes         content(std::min<size_t>(fs::file_size(path), n_at_most));
    if (!file.read(content.data(), (std::streamsize) content.size())) {
        throw std::runtime_error("the file cannot be read");
    }
    return content;
}

header header_of(const bytes & content, size_t n_bytes) {
    header head{};
    if (n_bytes >= sizeof(head)) {
        std::memcpy(&head, content.data(), sizeof(head));
    }
    if (head.magic != LLAMA_STATE_SEQ_MAGIC || head.version != LLAMA_STATE_SEQ_VERSION) {
        throw std::runtime_error("the file is no slot file, or one of another version of llama.cpp");
    }
    if (head.n_tokens > (n_bytes - sizeof(head)) / sizeof(llama_token)) {
        throw std::runtime_error("the file is damaged: it ends before its tokens do");
    }
    return head;
}

// How long llama.cpp's part is, of a file whose trailer is right, or that has none.
size_t check_trailer(const bytes & content, llama_context * ctx) {
    trailer end;
    if (content.size() < sizeof(end)) {
        return content.size();
    }
    const size_t n_before = content.size() - sizeof(end);
    std::memcpy(&end, content.data() + n_before, sizeof(end));
    if (std::memcmp(end.magic, MAGIC, sizeof(MAGIC)) != 0) {
        return content.size();
    }
    if (end.n_bytes != n_before || end.checksum != checksum_of(content, content.size() - sizeof(end.checksum))) {
        throw std::runtime_error("the file is damaged: its checksum is wrong");
    }
    if (end.model != model_of(ctx)) {
        throw std::runtime_error("the file was saved from another model");
    }
    return n_before;
}

// The state as llama_state_seq_set_data takes it: behind what it writes first, which is in no file.
void set_state(llama_context * ctx, llama_seq_id seq_id, const char * state, size_t n_bytes) {
    llama_memory_seq_rm(llama_get_memory(ctx), seq_id, -1, -1);
    std::vector<uint8_t> data(llama_state_seq_get_size(ctx, seq_id));
    const size_t         n_first = sizeof(uint32_t) + sizeof(llama_seq_id);
    if (llama_state_seq_get_data(ctx, data.data(), data.size(), seq_id) < n_first) {
        throw std::runtime_error("this server's memory cannot be restored from files");
    }
    data.resize(n_first);
    data.insert(data.end(), state, state + n_bytes);
    if (llama_state_seq_set_data(ctx, data.data(), data.size(), seq_id) != data.size()) {
        throw std::runtime_error("the file does not fit this server: it is damaged or of another model, the types of K "
                                 "and V are others, or there is not enough room in the KV cache");
    }
}

} // namespace

size_t atlas_load_slot_file(llama_context * ctx, const char * path, llama_seq_id seq_id, llama_token * tokens,
                            size_t capacity, size_t * n_tokens) {
    if (tokens == nullptr) {
        const bytes first = read_file(path, sizeof(header));
        *n_tokens         = header_of(first, fs::file_size(path)).n_tokens;
        return sizeof(header);
    }
    const bytes  content = read_file(path);
    const size_t n_bytes = check_trailer(content, ctx);
    const header head    = header_of(content, n_bytes);
    const size_t n_first = sizeof(head) + head.n_tokens * sizeof(llama_token);
    if (head.n_tokens > capacity) {
        throw std::runtime_error("the file was changed while it was read");
    }
    std::memcpy(tokens, content.data() + sizeof(head), head.n_tokens * sizeof(llama_token));
    set_state(ctx, seq_id, content.data() + n_first, n_bytes - n_first);

    const auto prompt = server_tokens::deserialize({tokens, tokens + head.n_tokens}, /* has_mtmd */ true);
    if (llama_memory_seq_pos_max(llama_get_memory(ctx), seq_id) + 1 != prompt.pos_next()) {
        throw std::runtime_error("the file is damaged: its tokens are not those of its state");
    }
    *n_tokens = head.n_tokens;
    return n_bytes;
}

size_t atlas_save_slot_file(llama_context * ctx, const char * path, llama_seq_id seq_id, const llama_token * tokens,
                            size_t n_tokens) {
    const fs::path name = path;
    const fs::path temporary =
        name.parent_path() / (".slot-" + std::to_string(::getpid()) + "-" + std::to_string(seq_id) + ".tmp");
    try {
        const size_t n_bytes = llama_state_seq_save_file(ctx, temporary.c_str(), seq_id, tokens, n_tokens);
        if (n_bytes == 0) {
            throw std::runtime_error("llama.cpp cannot write the file");
        }
        bytes   content = read_file(temporary);
        trailer end{};
        std::memcpy(end.magic, MAGIC, sizeof(MAGIC));
        end.model         = model_of(ctx);
        end.n_bytes       = content.size();
        const char * from = reinterpret_cast<const char *>(&end);
        content.insert(content.end(), from, from + sizeof(end) - sizeof(end.checksum));
        end.checksum = checksum_of(content, content.size());

        std::ofstream file(temporary, std::ios::binary | std::ios::app);
        if (!file.write(from, sizeof(end)) || !file.flush()) {
            throw std::runtime_error("the file cannot be written");
        }
        fs::rename(temporary, name);
        return n_bytes;
    } catch (const std::exception & error) {
        atlas::logf(atlas::LogLevel::ERROR, "Slot %d was not saved as %s: %s", seq_id, path, error.what());
        std::error_code ignored;
        fs::remove(temporary, ignored);
        return 0;
    }
}

void atlas_sync_slot_file(const std::string & path) {
    for (const std::string & each : {path, fs::path(path).parent_path().string()}) {
        const int  fd        = ::open(each.c_str(), O_RDONLY | O_CLOEXEC);
        const bool is_synced = fd >= 0 && (::fsync(fd) == 0 || errno == EINVAL); // some file systems know no fsync
        const int  code      = errno;
        if (fd >= 0) {
            ::close(fd);
        }
        if (!is_synced) {
            throw std::runtime_error("the slot was saved, but may not outlive a power loss: " + each + ": " +
                                     std::strerror(code));
        }
    }
}
