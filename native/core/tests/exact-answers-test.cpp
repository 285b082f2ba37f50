#include "atlas-exact-answers.hpp"
#include "cases.hpp"

#include <string>
#include <vector>

using namespace atlas;

// Each letter is a token of its own, 'a' as 0; 100 is a word, 101 and 102 are the halves of "é".
static std::string piece_of(int32_t token) {
    switch (token) {
        case 100: return "word";
        case 101: return "\xC3";
        case 102: return "\xA9";
        default:  return token >= 0 && token < 26 ? std::string(1, (char) ('a' + token)) : "";
    }
}

static exact_answer answered(const std::string & prompt, std::vector<int32_t> tokens) {
    return {end_of(prompt, prompt.size()), std::move(tokens), {}};
}

static std::string shown(const std::vector<prompt_part> & parts) {
    std::string text;
    for (const auto & part : parts) {
        text += "[" + part.text;
        for (const int32_t token : part.tokens) {
            text += std::to_string(token) + ".";
        }
        text += "]";
    }
    return text;
}

static std::string put(const std::string & prompt, const std::vector<exact_answer> & answers) {
    return shown(put_exact_answers(prompt, answers, piece_of));
}

CASE(a_prompt_goes_on_from_the_tokens_of_its_answers) {
    const std::string         first = "U:hi A:", second = first + "wordab|U:more A:";
    std::vector<exact_answer> answers = {answered(first, {100, 0, 1}), answered(second, {2})};
    CHECK(put(second + "c|U:x A:", answers) == "[U:hi A:][100.0.1.][|U:more A:][2.][|U:x A:]");
    CHECK(put(second + "c", answers) == "[U:hi A:][100.0.1.][|U:more A:][2.]");
    CHECK(put(second, answers) == "[U:hi A:][100.0.1.][|U:more A:]");
    // one that is not known token by token
    answers.erase(answers.begin());
    CHECK(put(second + "c|", answers) == "[" + second + "][2.][|]");
    CHECK(put("", answers) == "[]" && put("U:other A:wordab|", answers) == "[U:other A:wordab|]");
}

CASE(what_the_text_does_not_have_is_left) {
    const std::string prompt = "U:hi A:";
    const auto        answer = answered(prompt, {100, 0, 1});
    CHECK(put(prompt + "worda-", {answer}) == "[U:hi A:][100.0.][-]");
    CHECK(put(prompt + "xword", {answer}) == "[U:hi A:xword]");
    CHECK(put("u:hi A:wordab", {answer}) == "[u:hi A:wordab]");
    CHECK(put(prompt + "a", {answered(prompt, {-1, 0})}) == "[U:hi A:a]");
    CHECK(put(prompt + "a", {answered(prompt, {})}) == "[U:hi A:a]");
    // a character is not cut
    CHECK(put(prompt + "a\xC3\xA9", {answered(prompt, {0, 101, 102})}) == "[U:hi A:][0.101.102.]");
    CHECK(put(prompt + "a\xC3\xA8", {answered(prompt, {0, 101, 102})}) == "[U:hi A:][0.][\xC3\xA8]");
    // nor do answers lie within each other
    CHECK(put(prompt + "wordab", {answer, answered(prompt + "wo", {17})}) == "[U:hi A:][100.0.1.]");
    CHECK(put(prompt + "wordab", {{{1 << 30, 7}, {1}, {}}, answer}) == "[U:hi A:][100.0.1.]");
}

CASE(exact_answers_are_read_as_they_are_written) {
    const exact_answer answer = {end_of("a prompt", 8), {5, 0, 151935}, {"{\"n\": 1e3}"}};
    const auto         read   = exact_answers_of("[" + to_json(answer) + "," + to_json({{}, {}, {}}) + "]");
    CHECK(read.size() == 2 && read[0].tokens == answer.tokens && read[0].arguments == answer.arguments);
    CHECK(read[0].behind.n_bytes == 8 && read[0].behind.hash == answer.behind.hash && read[1].tokens.empty());
    for (const std::string damaged : {"", "7", "{}", "[7]", "[{}]", "[null", R"([{"bytes":-1,"hash":"0000000000000000",
            "tokens":[],"arguments":[]}])",
                                      R"([{"bytes":1,"hash":"x","tokens":[],"arguments":[]}])",
                                      R"([{"bytes":1,"hash":"0000000000000000","tokens":[-1],"arguments":[]}])",
                                      R"([{"bytes":1,"hash":"0000000000000000","tokens":[4294967296],"arguments":[]}])",
                                      R"([{"bytes":1,"hash":"0000000000000000","tokens":[1.5],"arguments":[]}])",
                                      R"([{"bytes":1,"hash":"0000000000000000","tokens":[1],"arguments":[1]}])"}) {
        CHECK(exact_answers_of(damaged).empty());
    }
}
