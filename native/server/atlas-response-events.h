// The events of a stream of /v1/responses: upstream leaves out their numbers, where in the output they belong, and some of
// them. Owned by one request; no locks.
#pragma once

#ifdef LLAMA_ATLAS

#include "json.h"

#include <cstdint>
#include <string>
#include <vector>

namespace atlas {

class response_events {
  public:
    // Adds to the events of a piece, an array of {"event", "data"}, their places in the output, and the events that upstream
    // leaves out before the end of an item.
    void complete(common_json & piece);

    // Gives each event the next number, from `first`. An answer that is not streamed has none.
    void number(common_json & piece, int64_t first);

    // The number that the next one gets.
    int64_t count() const { return next; }

  private:
    std::vector<std::string> items; // their ids, in the order of the output
    int64_t                  next = 0;

    size_t place_of(const std::string & item_id);
    void   complete_event(common_json & event);
};

} // namespace atlas

#endif // LLAMA_ATLAS
