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

// Negative, and none of upstream's: no text has them.
static llama_token token_of(uint32_t word, size_t i) {
    const uint32_t mixed = word ^ ((uint32_t) (i / N_WORDS) * 0x9e3779b1u);
    return std::min<llama_token>((llama_token) (mixed | 0x80000000u), LLAMA_TOKEN_NULL - 1);
}

static bool has_one_position(const mtmd_input_chunk * chunk) {
    const size_t n_tokens = mtmd_input_chunk_get_n_tokens(chunk);
    const auto * image    = mtmd_input_chunk_get_tokens_image(chunk);
    return image != nullptr && n_tokens > 0 && mtmd_image_tokens_get_decoder_pos(image, 0, n_tokens - 1).t == 0;
}

std::vector<atlas::media_span> atlas_media_of(const server_tokens & tokens) {
    std::vector<atlas::media_span> found;
    const auto                     add = [&](size_t begin, const mtmd_input_chunk * chunk) {
        found.push_back({begin, begin + mtmd_input_chunk_get_n_tokens(chunk), mtmd_input_chunk_get_n_pos(chunk),
                         has_one_position(chunk)});
    };
    if (!tokens.empty() && tokens[0] == LLAMA_TOKEN_NULL) {
        add(0, tokens.find_chunk(0).get());
    }
    for (auto next = tokens.find_next_media_chunk(0); next.first; next = tokens.find_next_media_chunk(next.second)) {
        add(next.second, next.first->get());
    }
    return found;
}

// Adds the tokens of an image or sound, without so many of the first. Returns false where it cannot be told from others.
static bool add_media(std::vector<llama_token> & to, const mtmd_input_chunk * chunk, const std::string & encoder,
                      size_t n_left_out) {
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
    for (size_t i = n_left_out; i < n_tokens; i++) {
        to.push_back(token_of(words[i % N_WORDS], i));
    }
    return true;
}

atlas_prompt_tokens::atlas_prompt_tokens(const server_tokens & of, const loaded_memory & memory, size_t first)
    : n(of.size()) {
    if (of.empty()) {
        return;
    }
    const llama_token * all = &of[0];
    text                    = all + first;
    media                   = atlas_media_of(of);
    if (media.empty() || media.back().end <= first) {
        return;
    }
    const std::string encoder = memory.encoder();
    size_t            done    = first;
    own.reserve(n - first);
    for (const auto & each : media) {
        if (each.end <= first) {
            continue;
        }
        const size_t begin   = std::max(first, each.begin);
        const bool   is_sane = done <= begin && each.end <= n; // a slot file may say anything
        if (is_sane) {
            own.insert(own.end(), all + done, all + begin);
        }
        if (!is_sane || !add_media(own, of.find_chunk(each.begin).get(), encoder, begin - each.begin)) {
            own.clear();
            media.clear();
            n = 0;
            return;
        }
        done = each.end;
    }
    own.insert(own.end(), all + done, all + n);
}

size_t atlas_prompt_tokens::boundary(size_t n_tokens) const {
    for (const auto & each : media) {
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
