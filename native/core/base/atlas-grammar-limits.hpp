// Limits the grammar of one request. Touches nothing; any thread: the patches call these functions inside libllama, on
// HTTP threads and in the token loop. Header-only, as atlas-limits.hpp.
#pragma once

#include "atlas-limits.hpp"

#include <cstddef>
#include <cstdint>
#include <regex>
#include <string>

namespace atlas {

// Elements of a grammar whose repetitions are written out.
constexpr size_t MAX_GRAMMAR_ELEMENTS = 1'000'000;

// Places where the grammar may go on, each with all that follows it. Comparing them takes quadratic time.
constexpr size_t MAX_GRAMMAR_STACKS = 200'000;

// States of a trigger's pattern: its characters times its counted repetitions.
constexpr size_t MAX_TRIGGER_STATES = 16'384;

// Characters that one search for a trigger looks at.
constexpr int64_t MAX_TRIGGER_STEPS = 20'000'000;

inline void check_grammar_size(size_t n_elements) {
    check_limit("elements of the grammar, with its repetitions written out", n_elements, MAX_GRAMMAR_ELEMENTS);
}

// n_elements: about as many as all stacks have, of places where the grammar may go on.
inline void check_grammar_stacks(size_t n_elements) {
    check_limit("ways in which the grammar may go on, times their depth", n_elements, MAX_GRAMMAR_STACKS);
}

// Where a grammar's trigger begins in a text that was generated: at the pattern's first group that matched anything,
// else where the pattern matches; npos: nowhere. As llama_grammar_trigger_pattern::find, within MAX_TRIGGER_STEPS.
inline size_t find_trigger(const std::string & pattern, const std::regex & regex, const std::string & text) {
    using iterator = checked_iterator<std::string::const_iterator, true>;

    const regex_steps            limited(MAX_TRIGGER_STEPS);
    const iterator               begin = text.begin();
    const iterator               end   = text.end();
    std::match_results<iterator> match;

    const bool is_of_all = !pattern.empty() && pattern.front() == '^' && pattern.back() == '$';
    if (!(is_of_all && std::regex_match(begin, end, match, regex)) && !std::regex_search(begin, end, match, regex)) {
        return std::string::npos;
    }
    for (size_t i = 1; i < match.size(); i++) {
        if (match.length(i) > 0) {
            return match.position(i);
        }
    }
    return match.position(0);
}

} // namespace atlas
