#include "atlas-exact-answers.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <utility>

namespace atlas {

using json = nlohmann::json;

constexpr size_t N_HEX = 16;

std::string to_json(const exact_answer & answer) {
    char hash[N_HEX + 1];
    std::snprintf(hash, sizeof hash, "%016" PRIx64, answer.behind.hash);
    const json all = {
        {"bytes", answer.behind.n_bytes}, {"hash", hash}, {"tokens", answer.tokens}, {"arguments", answer.arguments}};
    return all.dump(-1, ' ', false, json::error_handler_t::replace);
}

static std::optional<uint64_t> hash_of(const json & value) {
    const std::string text  = value.is_string() ? value.get<std::string>() : "";
    const bool        is_so = text.size() == N_HEX && text.find_first_not_of("0123456789abcdef") == std::string::npos;
    return is_so ? std::optional<uint64_t>(std::strtoull(text.c_str(), nullptr, 16)) : std::nullopt;
}

static bool is_token(const json & value) {
    return value.is_number_unsigned() && value.get<uint64_t>() <= (uint64_t) INT32_MAX;
}

static std::optional<exact_answer> exact_answer_of(const json & value) {
    for (const char * member : {"bytes", "hash", "tokens", "arguments"}) {
        if (!value.is_object() || !value.contains(member)) {
            return std::nullopt;
        }
    }
    const auto   hash      = hash_of(value.at("hash"));
    const json & bytes     = value.at("bytes");
    const json & tokens    = value.at("tokens");
    const json & arguments = value.at("arguments");
    if (!hash || !bytes.is_number_unsigned() || !tokens.is_array() || tokens.size() > MAX_EXACT_TOKENS ||
        !std::all_of(tokens.begin(), tokens.end(), is_token) || !arguments.is_array() ||
        !std::all_of(arguments.begin(), arguments.end(), [](const json & each) { return each.is_string(); })) {
        return std::nullopt;
    }
    return exact_answer{
        {bytes.get<size_t>(), *hash}, tokens.get<std::vector<int32_t>>(), arguments.get<std::vector<std::string>>()};
}

std::vector<exact_answer> exact_answers_of(const std::string & text) {
    const json                all = json::parse(text, nullptr, false);
    std::vector<exact_answer> found;
    for (const json & each : all.is_array() ? all : json::array()) {
        if (auto answer = exact_answer_of(each)) {
            found.push_back(std::move(*answer));
        }
    }
    return found;
}

// How many of the tokens spell what the text has from `begin` on, and where that ends.
static std::pair<size_t, size_t> spelled(const std::string & text, size_t begin, const std::vector<int32_t> & tokens,
                                         const std::function<std::string(int32_t)> & piece_of) {
    const auto is_within_character = [&](size_t at) { return at < text.size() && (text[at] & 0xC0) == 0x80; };

    size_t n = 0, end = begin, at = begin;
    for (size_t i = 0; i < tokens.size(); i++) {
        const std::string piece = piece_of(tokens[i]);
        if (piece.empty() || text.compare(at, piece.size(), piece) != 0) {
            break;
        }
        at += piece.size();
        if (!is_within_character(at)) {
            n   = i + 1;
            end = at;
        }
    }
    return {n, end};
}

std::vector<prompt_part> put_exact_answers(const std::string & prompt, const std::vector<exact_answer> & answers,
                                           const std::function<std::string(int32_t)> & piece_of) {
    std::vector<prompt_part> parts;
    size_t                   done = 0;
    prompt_end               at;
    for (const exact_answer & answer : answers) {
        const size_t begin = answer.behind.n_bytes;
        if (begin == 0 || begin < done || begin > prompt.size()) {
            continue;
        }
        at = end_of(prompt, begin, at);
        if (at.hash != answer.behind.hash) {
            continue;
        }
        const auto [n, end] = spelled(prompt, begin, answer.tokens, piece_of);
        if (n == 0) {
            continue;
        }
        if (begin > done) {
            parts.push_back({prompt.substr(done, begin - done), {}});
        }
        parts.push_back({"", {answer.tokens.begin(), answer.tokens.begin() + (ptrdiff_t) n}});
        done = end;
    }
    if (done < prompt.size() || parts.empty()) {
        parts.push_back({prompt.substr(done), {}});
    }
    return parts;
}

} // namespace atlas
