#include "key-slot.hpp"

#include <cstddef>

// libvalkey's, which has no header for others.
extern "C" uint16_t crc16(const char * buf, int len);

namespace atlas::resp {

uint16_t slot_of(std::string_view key) {
    const size_t open  = key.find('{');
    const size_t close = open == std::string_view::npos ? open : key.find('}', open);
    if (close != std::string_view::npos && close > open + 1) {
        key = key.substr(open + 1, close - open - 1);
    }
    return crc16(key.data(), (int) key.size()) % N_SLOTS;
}

} // namespace atlas::resp
