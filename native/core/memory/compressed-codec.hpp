// The codec that compresses the data of values before another one hides them, and gives it back: docs/memory-format.md.
#pragma once

#include "shared-codec.hpp"

#include <memory>

namespace atlas::memory {

// Whether this build can compress.
bool compression_is_built();

// Values come back whether they are compressed or not. Where this build cannot, compressed ones are foreign, and the first has
// a line in the log. compresses: what wrap() stores is compressed where that makes it smaller; needs compression_is_built().
std::shared_ptr<const shared_codec> make_compressed_codec(std::shared_ptr<const shared_codec> inner, bool compresses);

} // namespace atlas::memory
