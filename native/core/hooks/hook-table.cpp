#include "atlas-hook-table.hpp"

namespace atlas {

int hook_tally::miss(clock::time_point began, clock::time_point now) {
    timeouts++;
    clock::time_point last = last_miss;
    while (began >= last) {
        if (last_miss.compare_exchange_weak(last, now)) {
            return ++in_a_row;
        }
    }
    return in_a_row;
}

} // namespace atlas
