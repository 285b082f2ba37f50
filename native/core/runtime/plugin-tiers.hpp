// The tiers that plugins bring: which there are, and that the memory has them. Python's threads tell; any thread asks.
#pragma once

#include "atlas-hook-calls.hpp"
#include "atlas-memory.hpp"

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace atlas {

class plugin_tiers {
  public:
    // calls: of tiers; outlives what uses it.
    explicit plugin_tiers(hook_calls & calls) : calls(calls) {}

    // The memory that is to have them, and how it uses them. At the start, before Python.
    void set_memory(memory_store & of, shared_options with);

    // The query TIERS of atlas-abi.h; nothing where the argument is not as the header says.
    std::optional<std::string> answer(std::string_view argument);

    // Has those that do not work be tried at once.
    void try_again();

    struct named {
        int         number;
        std::string plugin, tier;
    };
    std::vector<named> all() const;

  private:
    hook_calls &   calls;
    memory_store * store = nullptr;
    shared_options like;
    std::mutex     settling; // one change at a time
};

} // namespace atlas
