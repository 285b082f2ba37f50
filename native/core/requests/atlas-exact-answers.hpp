// Answers of a conversation that the server keeps, token by token. A template writes an answer into the next prompt as text, and
// tokenizers may cut that otherwise than the model wrote it: from there on all would be computed anew. Pure: any thread.
#pragma once

#include "atlas-call-texts.hpp"

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace atlas {

// What was answered to a prompt.
struct exact_answer {
    prompt_end               behind; // which prompt
    std::vector<int32_t>     tokens; // of the model's vocabulary, at most MAX_EXACT_TOKENS
    std::vector<std::string> arguments; // of its tool calls, as they were sent to the client: JSON texts
};

// An answer that is longer is kept as its text alone.
constexpr size_t MAX_EXACT_TOKENS = 1 << 20;

// JSON: {"bytes": integer, "hash": 16 hexadecimal digits, "tokens": [integer, ...], "arguments": [text, ...]}. Tokens are 0 and
// above.
std::string to_json(const exact_answer & answer);

// Of a JSON array of such, those that are well-formed: it may come from a damaged file.
std::vector<exact_answer> exact_answers_of(const std::string & json);

// A part of a prompt: text that the tokenizer is to cut, or tokens as they are.
struct prompt_part {
    std::string          text;
    std::vector<int32_t> tokens; // where there are some, `text` is empty
};

// The prompt in parts. Wherever it goes on from one that was answered, its text has the answer's tokens, as far as they spell what is
// there. answers: the shortest prompt first; those of other prompts change nothing. piece_of: the bytes of a token of the
// model's; empty for what is none. One part of text: there is no such answer.
std::vector<prompt_part> put_exact_answers(const std::string & prompt, const std::vector<exact_answer> & answers,
                                           const std::function<std::string(int32_t)> & piece_of);

} // namespace atlas
