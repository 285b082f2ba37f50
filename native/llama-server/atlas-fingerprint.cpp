#include "atlas-fingerprint.h"

#include "build-info.h"
#include "common.h"
#include "hash/hash.h"
#include "llama.h"

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <vector>

// Raised whenever what the memory stores changes its meaning.
static const int MEMORY_FORMAT = 1;

// Enough to tell two models apart without reading gigabytes: the header with all metadata, and pieces of the weights
// from the whole file to its end, as training touches all of them. A file that is not much longer is read as a whole.
static const size_t HEADER_BYTES = 1 << 20;
static const size_t N_SAMPLES    = 256;
static const size_t SAMPLE_BYTES = 4096;

static std::string hash_file(const std::string & path) {
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    if (!file) {
        return "unreadable " + path;
    }
    const uint64_t    size = file.tellg();
    std::vector<char> bytes;
    const auto        read = [&](uint64_t begin, uint64_t n_bytes) {
        const size_t n_before = bytes.size();
        bytes.resize(n_before + n_bytes);
        file.seekg((std::streamoff) begin);
        file.read(bytes.data() + n_before, (std::streamsize) n_bytes);
    };
    if (size <= HEADER_BYTES + 8 * N_SAMPLES * SAMPLE_BYTES) {
        read(0, size);
    } else {
        read(0, HEADER_BYTES);
        for (size_t i = 1; i <= N_SAMPLES; i++) {
            read(HEADER_BYTES + (size - HEADER_BYTES) / N_SAMPLES * i - SAMPLE_BYTES, SAMPLE_BYTES);
        }
        read(size - SAMPLE_BYTES, SAMPLE_BYTES);
    }
    return std::to_string(size) + ":" + hash_sha256_hex(bytes.data(), bytes.size());
}

// All files of a model that is split, else the one.
static std::vector<std::string> model_files(const std::string & path) {
    int        n_files = 0;
    const auto of      = path.rfind("-of-");
    if (of != std::string::npos) {
        n_files = std::atoi(path.c_str() + of + 4);
    }
    char prefix[4096];
    if (n_files < 2 || llama_split_prefix(prefix, sizeof(prefix), path.c_str(), 0, n_files) == 0) {
        return {path};
    }
    std::vector<std::string> files;
    for (int i = 0; i < n_files; i++) {
        char file[4096];
        llama_split_path(file, sizeof(file), prefix, i, n_files);
        files.push_back(file);
    }
    return files;
}

std::string atlas_fingerprint(const common_params & params, const llama_context * ctx, size_t block_tokens,
                              bool has_checkpoints) {
    std::ostringstream text;
    text.precision(17);
    text << "format=" << MEMORY_FORMAT << " build=" << llama_build_info() << " block=" << block_tokens;
    for (const auto & file : model_files(params.model.path)) {
        text << " model=" << hash_file(file);
    }
    if (has_checkpoints) {
        // blocks fit any number of slots, checkpoints carry the number of streams
        text << " n_seq=" << llama_n_seq_max(ctx) << " unified=" << params.kv_unified;
    }
    text << " n_ctx=" << llama_n_ctx_seq(ctx) << " k=" << params.cache_type_k << " v=" << params.cache_type_v
         << " fa=" << params.flash_attn_type << " swa_full=" << params.swa_full << " rope=" << params.rope_scaling_type
         << "," << params.rope_freq_base << "," << params.rope_freq_scale << " yarn=" << params.yarn_ext_factor << ","
         << params.yarn_attn_factor << "," << params.yarn_beta_fast << "," << params.yarn_beta_slow << ","
         << params.yarn_orig_ctx;

    for (const auto & override : params.kv_overrides) {
        text << " override=" << override.key << "," << override.tag << "," << std::string(override.val_str, 128);
    }

    // not recorded in the state, and accepted wrongly by llama.cpp
    const char * rotation = std::getenv("LLAMA_ATTN_ROT_DISABLE");
    text << " rotation=" << (rotation == nullptr ? "" : rotation);

    for (const auto & vector : params.control_vectors) {
        text << " control=" << vector.strength << "," << hash_file(vector.fname);
    }
    text << " layers=" << params.control_vector_layer_start << "," << params.control_vector_layer_end;
    const std::string all = text.str();
    return hash_sha256_hex(all.data(), all.size());
}
