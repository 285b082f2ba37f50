#include "atlas-prompt-tokens.h"

#include "atlas-memory-setup.h"
#include "hash/hash.h"
#include "server-common.h"

#include <algorithm>
#include <cstdint>
#include <string>

// Each token of an image or sound has 31 bits of its digest. Fewer tokens than these are too few to tell it from others.
static const size_t N_WORDS    = 8;
static const size_t MIN_TOKENS = 4;

bool atlas_has_media(const server_tokens & tokens) {
    return !tokens.empty() && (tokens[0] == LLAMA_TOKEN_NULL || tokens.find_next_media_chunk(0).first != nullptr);
}

// Negative, and none of upstream's: no text has them.
static llama_token token_of(uint32_t word, size_t i) {
    const uint32_t mixed = word ^ ((uint32_t) (i / N_WORDS) * 0x9e3779b1u);
    return std::min<llama_token>((llama_token) (mixed | 0x80000000u), LLAMA_TOKEN_NULL - 1);
}

// Returns false where that cannot be told from others.
static bool add_media(std::vector<llama_token> & to, const mtmd_input_chunk * chunk, const std::string & encoder) {
    const char * id       = mtmd_input_chunk_get_id(chunk);
    const size_t n_tokens = mtmd_input_chunk_get_n_tokens(chunk);
    if (encoder.empty() || id == nullptr || *id == '\0' || n_tokens < MIN_TOKENS) {
        return false;
    }
    const std::string all = encoder + "\n" + id + "\n" + std::to_string(n_tokens);
    const std::string hex = hash_sha256_hex(all.data(), all.size());
    uint32_t          words[N_WORDS];
    for (size_t i = 0; i < N_WORDS; i++) {
        words[i] = (uint32_t) std::stoul(hex.substr(i * 8, 8), nullptr, 16);
    }
    for (size_t i = 0; i < n_tokens; i++) {
        to.push_back(token_of(words[i % N_WORDS], i));
    }
    return true;
}

atlas_prompt_tokens::atlas_prompt_tokens(const server_tokens & of, const loaded_memory & memory) : n(of.size()) {
    if (of.empty()) {
        return;
    }
    text = &of[0];
    if (!atlas_has_media(of)) {
        return;
    }
    const std::string encoder = memory.encoder();
    own.reserve(n);
    while (own.size() < n) {
        const size_t begin = own.size();
        if (of[begin] != LLAMA_TOKEN_NULL) {
            own.push_back(of[begin]);
        } else if (add_media(own, of.find_chunk(begin).get(), encoder)) {
            media.push_back({begin, own.size()});
        } else {
            own.clear();
            media.clear();
            n = 0;
            return;
        }
    }
}

size_t atlas_prompt_tokens::boundary(size_t n_tokens) const {
    for (const span & each : media) {
        if (each.begin < n_tokens && n_tokens < each.end) {
            return each.begin;
        }
    }
    return n_tokens;
}

void atlas_copy_tokens(server_tokens & to, const server_tokens & from, size_t n_tokens) {
    while (to.size() < n_tokens) {
        const llama_token token = from[to.size()];
        if (token == LLAMA_TOKEN_NULL) {
            to.push_back_placeholder(from.find_chunk(to.size()).get());
        } else {
            to.push_back(token);
        }
    }
}
