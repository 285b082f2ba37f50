#include "atlas-fingerprint.hpp"
#include "atlas-model-memory.hpp"

namespace atlas {

model_memory::model_memory(memory_store & kept, root_status & status, const probed_state & probed)
    : store(kept), status(status), roots(kept, status), parts(probed.layout) {
    store.expect_blocks_of(probed.token_bytes * store.options().block_tokens);
}

void model_memory::settle_root(const model_description & model, const llama_context * ctx,
                               const std::vector<std::string> & lineages) {
    auto & files = status.hash_files(fingerprint_files(model));
    roots.settle(files, fingerprint_settings(model, ctx, store.options().block_tokens, layout()), lineages,
                 model.adapters.size());
}

} // namespace atlas
