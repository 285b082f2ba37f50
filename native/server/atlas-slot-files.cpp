#include "atlas-slot-files.h"

#include "atlas-lineage.h"
#include "atlas-llama-server.h"
#include "atlas-log.hpp"
#include "atlas-memory-setup.h"
#include "atlas-positions.hpp"
#include "atlas-prompt-tokens.h"
#include "atlas-runtime.hpp"
#include "atlas-slots.h"
#include "hash/xxhash/xxhash.h"
#include "server-common.h"
#include "server-task.h"

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
#include <utility>
#include <vector>

#undef llama_state_seq_save_file // llama.cpp's own writes its part

namespace fs = std::filesystem;

namespace {

using bytes = std::vector<char>;

// What the memory calls the state by, in a file that may be kept: before the trailer.
constexpr size_t PROOF_BYTES = 64;

constexpr char MAGIC[8] = {'A', 'T', 'L', 'A', 'S', 'S', 'L', '1'};

// The end of a file of ours, in the machine's byte order, as llama.cpp's part.
struct trailer {
    char     magic[sizeof(MAGIC)];
    uint64_t model;    // model_of()
    uint64_t n_bytes;  // of llama.cpp's part
    uint64_t checksum; // of all before
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

// How long llama.cpp's part is, of a file whose trailer is right, or that has none. Sets the proof that the file has, or none.
size_t check_trailer(const bytes & content, llama_context * ctx, std::string & proof) {
    proof.clear();
    trailer end;
    if (content.size() < sizeof(end)) {
        return content.size();
    }
    const size_t n_before = content.size() - sizeof(end);
    std::memcpy(&end, content.data() + n_before, sizeof(end));
    if (std::memcmp(end.magic, MAGIC, sizeof(MAGIC)) != 0) {
        return content.size();
    }
    const size_t n_proof = n_before - std::min<size_t>(n_before, end.n_bytes);
    const bool   is_long = n_proof == PROOF_BYTES;
    if (!(end.n_bytes == n_before || is_long) ||
        end.checksum != checksum_of(content, content.size() - sizeof(end.checksum))) {
        throw std::runtime_error("the file is damaged: its checksum is wrong");
    }
    if (end.model != model_of(ctx)) {
        throw std::runtime_error("the file was saved from another model");
    }
    proof.assign(content.data() + end.n_bytes, n_proof);
    return end.n_bytes;
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

// Names exactly this state: what the tokens stand for, under the root of the memory. Empty where that is not known.
std::string proof_of(const server_tokens & tokens) {
    auto * memory = atlas_loaded_memory();
    if (memory == nullptr || !memory->model.root()->is_known) {
        return "";
    }
    const atlas_prompt_tokens all(tokens, *memory);
    const std::string         root = memory->model.root()->of(tokens.lineage);
    return all.size() == 0 ? "" : atlas::memory_store::key_of(atlas::entry_kind::tail, root, all.data(), all.size());
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
    std::string  proof;
    const size_t n_bytes = check_trailer(content, ctx, proof);
    const header head    = header_of(content, n_bytes);
    const size_t n_first = sizeof(head) + head.n_tokens * sizeof(llama_token);
    if (head.n_tokens > capacity) {
        throw std::runtime_error("the file was changed while it was read");
    }
    std::memcpy(tokens, content.data() + sizeof(head), head.n_tokens * sizeof(llama_token));
    set_state(ctx, seq_id, content.data() + n_first, n_bytes - n_first);

    // a prompt that was left within an image ends at a position of that, not before the next
    const auto      prompt = server_tokens::deserialize({tokens, tokens + head.n_tokens}, /* has_mtmd */ true);
    const llama_pos last   = prompt.empty() ? -1 : atlas::position_of(atlas_media_of(prompt), prompt.size() - 1);
    if (llama_memory_seq_pos_max(llama_get_memory(ctx), seq_id) != last) {
        throw std::runtime_error("the file is damaged: its tokens are not those of its state");
    }
    if (auto * memory = atlas_loaded_memory()) {
        memory->slot_file_proof = proof;
    }
    *n_tokens = head.n_tokens;
    return n_bytes;
}

size_t atlas_save_slot_file(llama_context * ctx, const char * path, llama_seq_id seq_id, const llama_token * tokens,
                            size_t n_tokens, const server_prompt & prompt) {
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
        end.model        = model_of(ctx);
        end.n_bytes      = content.size();
        const auto proof = atlas_is_prefill_exact(prompt) ? proof_of(prompt.tokens) : "";
        content.insert(content.end(), proof.begin(), proof.end());
        const char * from = reinterpret_cast<const char *>(&end);
        content.insert(content.end(), from, from + sizeof(end) - sizeof(end.checksum));
        end.checksum = checksum_of(content, content.size());

        std::ofstream file(temporary, std::ios::binary | std::ios::app);
        if (!file.write(proof.data(), (std::streamsize) proof.size()) || !file.write(from, sizeof(end)) ||
            !file.flush()) {
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

void atlas_adopt(server_prompt & prompt, const std::vector<common_adapter_lora_info> & loaded) {
    if (!atlas_active()) {
        return;
    }
    prompt.tokens.lineage = atlas_lineage_of("", atlas_adapters_of(loaded), {});
    auto * memory         = atlas_loaded_memory();
    if (memory == nullptr) {
        return;
    }
    const std::string proof = std::exchange(memory->slot_file_proof, "");
    if (!proof.empty() && proof == proof_of(prompt.tokens)) {
        prompt.tokens.n_prefilled = SIZE_MAX;
        prompt.atlas.is_unwanted  = false;
        atlas_active()->write_backs().on_launch(); // a flush waits for it
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
