// Which of a cluster's hash slots a key is in.
#pragma once

#include <cstdint>
#include <string_view>

namespace atlas::resp {

constexpr uint16_t N_SLOTS = 16384;

// CRC16 of the key, or of what it has in braces, modulo N_SLOTS: as the cluster specification has it.
// https://valkey.io/topics/cluster-spec/
uint16_t slot_of(std::string_view key);

} // namespace atlas::resp
