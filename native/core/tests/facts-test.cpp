// What atlas-facts.h says, and code that says it again for speed.
#include "atlas-error.hpp"
#include "atlas-facts.h"
#include "atlas-request.hpp"
#include "cases.hpp"

#include <regex>
#include <string>

CASE(facts_ids_are_those_of_the_pattern) {
    const std::regex pattern(ATLAS_ID_PATTERN);
    const auto agrees = [&](const std::string & id) { return atlas::is_valid_id(id) == std::regex_match(id, pattern); };
    for (int c = 0; c < 256; c++) {
        CHECK(agrees(std::string(1, (char) c)) && agrees(std::string("a") + (char) c) &&
              agrees((char) c + std::string("a")));
    }
    for (const size_t length : {0, 1, ATLAS_MAX_ID_LENGTH - 1, ATLAS_MAX_ID_LENGTH, ATLAS_MAX_ID_LENGTH + 1}) {
        CHECK(agrees(std::string(length, 'a')));
    }
    CHECK(atlas::is_valid_id(std::string(ATLAS_MAX_ID_LENGTH, 'a')) && !atlas::is_valid_id(""));
}

CASE(facts_other_errors_have_the_type_of_their_kind) {
    for (const int status : {405, 413, 418}) {
        CHECK(atlas::error_type(status) == std::string("validation_error"));
    }
    CHECK(atlas::error_type(429) == std::string("rate_limit_error"));
    CHECK(atlas::error_type(502) == std::string("server_error"));
}
