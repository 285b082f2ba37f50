// Names and seals the values of a store that the servers of a fleet share. The store learns sizes and times, and whoever can
// write to it can at most make values miss. Touches nothing; any thread but the loop's, as it takes time.
#pragma once

#include "atlas-seal.hpp"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace atlas {

class fleet_seal {
  public:
    // Throws std::runtime_error as sealer does.
    explicit fleet_seal(const secret_key & fleet_secret) : with(fleet_secret, "shared") {}

    // Of an entry of a root, both given as 64 hexadecimal digits: 64 digits that tell nothing to who lacks the secret, the
    // same on all servers that have it.
    seal_name name_of_root(std::string_view root) const { return with.name_of("root " + std::string(root)); }
    seal_name name_of_entry(std::string_view key) const { return with.name_of("entry " + std::string(key)); }

    // The same of whose a record is.
    seal_name name_of_record(std::string_view owner) const { return with.name_of("record " + std::string(owner)); }

    // The bytes of what wrap() writes for these pieces, which are one value; the first is a chunk of its own.
    static uint64_t wrapped_bytes(const std::vector<std::string_view> & pieces);

    // Seals the pieces, one behind the other, under a name. Throws std::bad_alloc, and std::runtime_error where the system has
    // no random bytes or the first piece is larger than MAX_FIRST_CHUNK.
    void wrap(std::string_view name, const std::vector<std::string_view> & pieces, uint8_t * to) const;

    // How many bytes unwrap() writes; nothing where the value cannot be one of this secret. Not more than the value has.
    std::optional<uint64_t> plain_bytes(std::string_view value) const;

    // Gives back what was sealed. False: the value was not sealed under that name by this secret, or was changed; then what was
    // written is worth nothing. Throws std::bad_alloc.
    bool unwrap(std::string_view name, std::string_view value, uint8_t * to) const;

  private:
    sealer with;

    struct layout;
    std::optional<layout> layout_of(std::string_view name, std::string_view value,
                                    std::optional<sealed_chunks> & chunks) const;
};

} // namespace atlas
