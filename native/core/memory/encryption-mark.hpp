// The file `encryption` of a memory's directory (docs/memory-format.md), which says that what is there is encrypted, and by
// which secret. Touches that file; the main thread, at the start.
#pragma once

#include <string>

namespace atlas {

class sealer;

// To be called before anything of the directory is read or written. seal: what encrypts there; null: nothing does. Makes the
// mark where it is missing. Throws std::runtime_error where the directory's secret is another, where it has one and none is
// given, and where the mark cannot be read or made: nothing was changed then.
void check_encryption_mark(const std::string & memory_path, const sealer * seal);

} // namespace atlas
