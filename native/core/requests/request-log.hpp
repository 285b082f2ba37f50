// The log lines of a request that ended. Touches the log only; the HTTP thread that served the request calls it.
#pragma once

#include "atlas-config.hpp"
#include "atlas-ended-requests.hpp"
#include "atlas-request.hpp"

namespace atlas {

// One line for the request; another where it was slow, or took longer in ATLAS than the latency budget. Any thread.
void log_ended(const request & request, const request_record & record, const AtlasServerConfig & config);

} // namespace atlas
