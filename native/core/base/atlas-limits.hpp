// What one request may ask for, so that none ends the process or holds up all others for good. Far above what people
// ask for; docs/requests.md has the table. Those of grammars are in atlas-grammar-limits.hpp.
//
// Header-only and without types of ATLAS: the patches call these functions inside llama-common. All throw limit_error
// and may be called by any thread.
#pragma once

#include "atlas-stack.hpp"

#include <algorithm>
#include <cstddef>
#include <string>

namespace atlas {

constexpr int    MAX_JSON_DEPTH  = 1000; // arrays and objects in each other, in any JSON text
constexpr size_t MAX_SCHEMA_NAME = 4096; // bytes: a property's name, a tool's name, a $ref
constexpr size_t MAX_PROPERTIES  = 2000; // of one object in a schema; converting them takes cubic time
constexpr int    MAX_LAST_TOKENS = 1 << 20; // tokens at which penalties look back

// Whether arrays and objects stand in each other in more than limit levels, as far as the text is JSON.
inline bool is_json_deeper_than(const std::string & text, int limit) {
    // counting brackets is fast, and few texts have so many
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

inline void check_limit(const std::string & what, size_t value, size_t limit) {
    if (value > limit) {
        throw limit_error(what + ": " + std::to_string(value) + ", at most " + std::to_string(limit) + " are allowed");
    }
}

// Before a text is parsed as JSON. Copying, writing and reading a value recurse.
inline void check_json(const std::string & text) {
    if (is_json_deeper_than(text, MAX_JSON_DEPTH)) {
        throw limit_error("nested deeper than " + std::to_string(MAX_JSON_DEPTH) + " levels");
    }
}

// Before a name becomes that of a grammar's rule: std::regex takes out what is no letter, digit or dash, and recurses
// for each character of a run. A name may be a path of names.
inline void check_rule_name(const std::string & name) {
    size_t run = 0;
    for (const char c : name) {
        const bool is_kept = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-';
        run                = is_kept ? 0 : run + 1;
        check_limit("characters of a name that are no letters, digits or dashes", run, MAX_SCHEMA_NAME);
    }
}

// At each node of a JSON schema that is read. path: where it stands, or the $ref that led there.
inline void check_schema_node(const std::string & path) {
    check_stack("the JSON schema, with what its $ref name,");
    check_rule_name(path);
}

// Before the properties of one object become rules. properties: a range of pairs whose first is a name.
template <typename Properties> void check_properties(const Properties & properties) {
    check_limit("properties of an object in the JSON schema", properties.size(), MAX_PROPERTIES);
    for (const auto & property : properties) {
        check_limit("bytes in the name of a property", property.first.size(), MAX_SCHEMA_NAME);
    }
}

} // namespace atlas
