#include "atlas-fingerprint.hpp"
#include "atlas-model-memory.hpp"
#include "atlas-state-proof.hpp"

namespace atlas {

model_memory::model_memory(memory_store & kept, root_status & status, const probed_state & probed)
    : store(kept), status(status), roots(kept, status), target(probed.layout) {
    store.expect_blocks_of(probed.token_bytes * store.options().block_tokens);
}

void model_memory::settle_root(const model_description & model, const llama_context * ctx,
                               const std::vector<std::string> & lineages, const proof_context & to_try,
                               const std::string & draft) {
    auto &     files = status.hash_files(fingerprint_files(model));
    const auto name  = model.file.substr(model.file.rfind('/') + 1);
    roots.settle(files,
                 {fingerprint_settings(model, ctx, store.options().block_tokens, layout()),
                  fingerprint_environment(model, ctx), name, draft},
                 lineages, model.adapters.size(), make_prover(*this, to_try));
}

} // namespace atlas
