// Which memory types of llama.cpp know ranges of positions; a patch calls this inside libllama.
#pragma once

#include "llama-kv-cache-dsa-iswa.h"
#include "llama-kv-cache-dsa.h"
#include "llama-kv-cache-iswa.h"
#include "llama-kv-cache-msa.h"
#include "llama-kv-cache.h"
#include "llama-memory-hybrid-idx.h"
#include "llama-memory-hybrid-iswa.h"
#include "llama-memory-hybrid.h"
#include "llama-memory-recurrent.h"

#include <stdexcept>
#include <typeinfo>

namespace atlas {

// Whether the type is exactly one of those that heed the range of llama_io_write_i and the flags NON_PARTIAL and APPEND,
// or hand both on to such. A type derived from one may write more, and has to be looked at first.
// Null: a model without memory.
inline bool knows_ranges(const llama_memory_i * memory) {
    if (memory == nullptr) {
        return false;
    }
    const auto is_one_of = [&type = typeid(*memory)](const auto &... known) { return ((type == known) || ...); };
    return is_one_of(typeid(llama_kv_cache), typeid(llama_kv_cache_dsa), typeid(llama_kv_cache_dsa_iswa),
                     typeid(llama_kv_cache_iswa), typeid(llama_kv_cache_msa), typeid(llama_memory_hybrid),
                     typeid(llama_memory_hybrid_idx), typeid(llama_memory_hybrid_iswa), typeid(llama_memory_recurrent));
}

// Whether state is to be added to what the sequence holds. Throws where the flags ask for what the memory does not know: it
// would take the range for all of its state.
inline bool appends(const llama_memory_i * memory, llama_state_seq_flags flags) {
    if ((flags & (LLAMA_STATE_SEQ_FLAGS_NON_PARTIAL | LLAMA_STATE_SEQ_FLAGS_APPEND)) != 0 && !knows_ranges(memory)) {
        throw std::runtime_error("this memory type does not know ranges of its state");
    }
    return (flags & LLAMA_STATE_SEQ_FLAGS_APPEND) != 0;
}

} // namespace atlas
