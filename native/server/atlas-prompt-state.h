// What is known of a slot's state, a member of server_prompt.
#pragma once

#ifdef LLAMA_ATLAS

#include "atlas-sequence-record.hpp"

struct atlas_prompt_state : atlas::sequence_record {
    atlas::sequence_record draft; // of what drafts tokens; is_inexact also where it has not all of them

    atlas_prompt_state() { draft.is_inexact = true; } // until it is seen to be empty, or was put there
};

#endif // LLAMA_ATLAS
