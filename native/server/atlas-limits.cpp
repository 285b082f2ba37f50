#include "atlas-limits.h"

#include "atlas-error.hpp"
#include "atlas-grammar-limits.hpp"
#include "common.h"

#include <pthread.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>

// Twice what most systems give, as checks and their reserve need a part: what fits in stock fits. Enough to follow
// MAX_JSON_DEPTH levels. Only what is used becomes resident.
static const size_t MIN_STACK_BYTES = 16 << 20;

static const long MAX_PATTERN_GROUPS = 1000;

void atlas_prepare_stacks() {
    pthread_attr_t attributes;
    size_t         n_bytes = 0;
    if (pthread_getattr_default_np(&attributes) == 0) {
        if (pthread_attr_getstacksize(&attributes, &n_bytes) == 0 && n_bytes < MIN_STACK_BYTES) {
            pthread_attr_setstacksize(&attributes, MIN_STACK_BYTES);
            pthread_setattr_default_np(&attributes);
        }
        pthread_attr_destroy(&attributes);
    }
    atlas::own_stack();
}

int atlas_count_of(const common_json & data, const std::string & field, int max) {
    if (!data.contains(field) || !data.at(field).is_number()) {
        return 1;
    }
    const double value = data.at(field).get<double>(); // may be far beyond an int
    return value < 1 ? 1 : (int) std::min<double>(value, max);
}

// An upper bound of what std::regex makes of a pattern: its length, times all of its counted repetitions.
static double states_of(const std::string & pattern) {
    double states = (double) pattern.size();
    for (size_t i = 0; i < pattern.size(); i++) {
        if (pattern[i] == '\\') {
            i++;
        } else if (pattern[i] == '{') {
            const size_t end = std::min(pattern.find('}', i), pattern.size());
            for (size_t at = i + 1; at < end; at++) {
                if (std::isdigit((unsigned char) pattern[at])) {
                    char * behind = nullptr;
                    states *= std::max(std::strtod(pattern.c_str() + at, &behind), 1.0);
                    at = behind - pattern.c_str();
                }
            }
        }
    }
    return states;
}

static void check_trigger(const common_json & trigger) {
    static const std::string FIELD = "grammar_triggers";
    if (!trigger.is_object()) {
        throw atlas::validation_error(FIELD, "must be an array of objects");
    }
    const int type =
        trigger.contains("type") && trigger.at("type").is_number_integer() ? trigger.at("type").get<int>() : -1;
    if (type < COMMON_GRAMMAR_TRIGGER_TYPE_TOKEN || type > COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN_FULL) {
        throw atlas::validation_error(FIELD, "type must be a number from 0 to 3");
    }
    const std::string value = trigger.value("value", "");
    if (states_of(value) > (double) atlas::MAX_TRIGGER_STATES ||
        std::count(value.begin(), value.end(), '(') > MAX_PATTERN_GROUPS) {
        throw atlas::validation_error(FIELD,
                                      "a value is too long: its characters times its repetitions must be at most " +
                                          std::to_string(atlas::MAX_TRIGGER_STATES) + ", its groups at most " +
                                          std::to_string(MAX_PATTERN_GROUPS));
    }
}

void atlas_check_parameters(const common_json & data) {
    if (!data.is_object()) {
        return; // and refused by llama-server
    }
    if (data.contains("grammar_triggers") && data.at("grammar_triggers").is_array()) {
        for (const auto & trigger : data.at("grammar_triggers")) {
            check_trigger(trigger);
        }
    }
    for (const char * field : {"repeat_last_n", "dry_penalty_last_n"}) {
        if (atlas_count_of(data, field, atlas::MAX_LAST_TOKENS + 1) > atlas::MAX_LAST_TOKENS) {
            throw atlas::validation_error(field, "value must be at most " + std::to_string(atlas::MAX_LAST_TOKENS));
        }
    }
}
