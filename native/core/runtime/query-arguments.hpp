// How arguments of queries are read that Python asks (atlas-abi.h). Pure.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>

namespace atlas {

// An argument that is not as the header says. The library's own conversions wrap, cut off or are undefined.
struct bad_argument {};

template <typename Json> int64_t number_of(const Json & argument, const char * name, int64_t min, int64_t max) {
    const Json & value = argument.at(name);
    if (!value.is_number_unsigned() || value.template get<uint64_t>() < (uint64_t) min ||
        value.template get<uint64_t>() > (uint64_t) max) {
        throw bad_argument();
    }
    return value.template get<int64_t>();
}

} // namespace atlas
