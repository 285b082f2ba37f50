// What of a request's limits llama-server's own types are needed for; the rest is atlas-limits.hpp.
#pragma once

#include "json.h"

#include <string>

// Main thread, before any other starts: every thread gets MIN_STACK_BYTES of stack at least, whatever `ulimit -s` says, and
// the loop need not read where its own ends.
void atlas_prepare_stacks();

// HTTP thread: the parameters of a completion that upstream does not check, and that would end the process. Throws
// atlas::error, which names the field.
void atlas_check_parameters(const common_json & data);

// The integer of that field: 1 where there is none or no number, else the nearest from 1 to max.
int atlas_count_of(const common_json & data, const std::string & field, int max);
