#include "atlas-fingerprint.hpp"
#include "hash/xxhash/xxhash.h"
#include "llama.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <utility>

// Of libllama, which has no header for others that declares it.
const std::vector<std::pair<std::string, ggml_tensor *>> & llama_internal_get_tensor_map(const llama_model * model);

namespace atlas {

static const size_t PIECE_BYTES = 4 << 20;

static void add(XXH3_state_t * to, const ggml_tensor * tensor) {
    const size_t n_bytes = ggml_nbytes(tensor);
    if (tensor->buffer == nullptr || ggml_backend_buffer_is_host(tensor->buffer)) {
        XXH3_128bits_update(to, tensor->data, n_bytes);
        return;
    }
    std::vector<char> piece(std::min(PIECE_BYTES, n_bytes));
    for (size_t at = 0; at < n_bytes; at += piece.size()) {
        const size_t size = std::min(piece.size(), n_bytes - at);
        ggml_backend_tensor_get(tensor, piece.data(), at, size);
        XXH3_128bits_update(to, piece.data(), size);
    }
}

std::string hash_weights(const llama_model * model) {
    const std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t *)> state(XXH3_createState(), XXH3_freeState);
    XXH3_128bits_reset(state.get());
    for (const auto & [name, tensor] : llama_internal_get_tensor_map(model)) {
        const std::string head = name + " " + ggml_type_name(tensor->type) + " " + std::to_string(tensor->ne[0]) + " " +
                                 std::to_string(tensor->ne[1]) + " " + std::to_string(tensor->ne[2]) + ";";
        XXH3_128bits_update(state.get(), head.data(), head.size());
        add(state.get(), tensor);
    }
    const XXH128_hash_t hash = XXH3_128bits_digest(state.get());
    char                text[33];
    std::snprintf(text, sizeof(text), "%016llx%016llx", (unsigned long long) hash.high64,
                  (unsigned long long) hash.low64);
    return text;
}

} // namespace atlas
