// A server whose model is unloaded for want of requests: what it answers without being woken.
#pragma once

#ifdef LLAMA_ATLAS

#include "atlas-llama-server.h"

// Whether it is so. Any thread.
bool atlas_is_asleep();

// Upstream's handler of GET /slots, but that a sleeping server shows its slots as they were before, and sleeps on.
atlas_handler atlas_with_slots_asleep(const atlas_handler & stock);

#endif // LLAMA_ATLAS
