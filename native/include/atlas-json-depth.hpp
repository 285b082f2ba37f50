// How deep a JSON text is nested, to be asked before it is parsed: the parser copies what it has so far when an object
// grows, and that recurses, as do many who read the value. A client that nests deep enough would use up the stack.
#pragma once

#include <algorithm>
#include <string>

namespace atlas {

// Deeper than any request.
constexpr int MAX_JSON_DEPTH = 1000;

// Whether arrays and objects stand in each other in more than limit levels, as far as the text is JSON.
inline bool is_json_deeper_than(const std::string & text, int limit) {
    // few have as many brackets
    if (std::count(text.begin(), text.end(), '[') + std::count(text.begin(), text.end(), '{') <= limit) {
        return false;
    }
    int  depth     = 0;
    bool in_string = false;
    for (size_t i = 0; i < text.size(); i++) {
        const char c = text[i];
        if (in_string) {
            i += c == '\\' ? 1 : 0;
            in_string = c != '"';
        } else if (c == '"') {
            in_string = true;
        } else if (c == ']' || c == '}') {
            depth--;
        } else if ((c == '[' || c == '{') && ++depth > limit) {
            return true;
        }
    }
    return false;
}

} // namespace atlas
