#include "atlas-state-proof.hpp"

#include "atlas-model-memory.hpp"
#include "atlas-sequence-state.hpp"
#include "src/llama-model.h"

#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <utility>

namespace atlas {

namespace {

constexpr size_t MAX_TOKENS     = 2048; // computed again, of a model whose state cannot be cut
constexpr size_t N_NEXT         = 8; // tokens that are computed behind a beginning, to compare what they give
constexpr size_t N_LIKELY       = 32; // next tokens that are compared: the others are never chosen
constexpr int    LARGE_BATCH    = 512;
constexpr int    SMALL_BATCH    = 48;
constexpr double TIMES_OF_NOISE = 4;

// Where splitting batches changes nothing at all, so much is allowed of what it changes to have no state: rounding a number to
// 16 bits changes it by a 2,048th.
constexpr double LEAST_ALLOWED = 1.0 / 2048;

using rows        = std::vector<std::vector<float>>; // log-probabilities, by token that was computed
using context_ptr = std::unique_ptr<llama_context, decltype(&llama_free)>;

struct stopped {}; // thrown where the prover is not wanted any more
struct unable { // thrown where nothing can be told
    std::string why;
};

std::vector<float> log_probabilities(const float * logits, size_t n) {
    const float largest = *std::max_element(logits, logits + n);
    const auto  add     = [&](double sum, float logit) { return sum + std::exp((double) (logit - largest)); };
    const auto  whole   = (float) std::log(std::accumulate(logits, logits + n, 0.0, add));

    std::vector<float> all(logits, logits + n);
    for (float & each : all) {
        each -= largest + whole;
    }
    return all;
}

// The root of the mean square, over the tokens that are likely by the first.
double distance(const rows & one, const rows & other) {
    double sum = 0;
    size_t n   = 0;
    for (size_t row = 0; row < one.size(); row++) {
        std::vector<size_t> order(one[row].size());
        std::iota(order.begin(), order.end(), 0);
        const size_t n_likely = std::min(N_LIKELY, order.size());
        std::partial_sort(order.begin(), order.begin() + (std::ptrdiff_t) n_likely, order.end(),
                          [&](size_t a, size_t b) { return one[row][a] > one[row][b]; });
        for (size_t i = 0; i < n_likely; i++, n++) {
            const double apart = one[row][order[i]] - other[row][order[i]];
            sum += apart * apart;
        }
    }
    return n > 0 ? std::sqrt(sum / (double) n) : 0;
}

// Of sequence 0 of a context of its own.
class trial {
  public:
    trial(const proof_context & of, size_t n_tokens, bool needs_same_streams, const std::function<bool()> & is_unwanted)
        : is_unwanted(is_unwanted), ctx(make(of, n_tokens, needs_same_streams), llama_free) {
        if (!ctx) {
            throw unable{"no context could be made to try it in"};
        }
        llama_set_abort_callback(
            ctx.get(), [](void * self) { return static_cast<trial *>(self)->is_unwanted(); }, this);

        // A context that computed nothing must not be freed: with it the RPC backend forgets the graph that was computed last,
        // and ends the process of whoever computes that one again.
        const int32_t any = 0;
        compute(&any, 1, 1, false);
        clear();
        if (of.prepare && !of.prepare(ctx.get())) {
            throw unable{"adapters could not be put in force to try it"};
        }
    }

    llama_context * get() const { return ctx.get(); }

    void clear() { llama_memory_clear(llama_get_memory(ctx.get()), true); }

    // Computes tokens behind what the sequence has. With `all` the log-probabilities behind each.
    rows compute(const int32_t * tokens, size_t n, int batch_size, bool all) {
        rows      found;
        llama_pos pos = llama_memory_seq_pos_max(llama_get_memory(ctx.get()), 0) + 1;
        for (size_t at = 0; at < n; at += (size_t) batch_size) {
            const size_t n_now = std::min<size_t>((size_t) batch_size, n - at);
            decode(tokens + at, n_now, pos + (llama_pos) at, all, found);
        }
        return found;
    }

  private:
    const std::function<bool()> & is_unwanted;
    context_ptr                   ctx;

    static llama_context * make(const proof_context & of, size_t n_tokens, bool needs_same_streams) {
        llama_context_params with = of.parameters;
        if (!needs_same_streams) {
            with.n_seq_max = 1;
        }
        // a long context may be computed otherwise, so one that is short must not take its place
        const auto trained = (size_t) llama_model_n_ctx_train(of.model);
        const auto n_ctx   = std::min(of.n_ctx, of.n_ctx > trained ? std::max(n_tokens, trained + 256) : n_tokens);
        with.n_ctx         = (uint32_t) (n_ctx * (with.kv_unified ? 1 : with.n_seq_max));
        with.n_batch       = LARGE_BATCH;
        with.n_ubatch      = std::min<uint32_t>(with.n_ubatch, LARGE_BATCH);
        with.n_outputs_max = with.n_outputs_max_per_seq = N_NEXT;
        with.no_perf                                    = true;
        with.cb_eval                                    = nullptr;
        return llama_init_from_model(of.model, with);
    }

    void decode(const int32_t * tokens, size_t n, llama_pos pos, bool all, rows & found) {
        const std::unique_ptr<llama_batch, void (*)(llama_batch *)> batch(
            new llama_batch(llama_batch_init((int32_t) n, 0, 1)), [](llama_batch * made) {
                llama_batch_free(*made);
                delete made;
            });
        batch->n_tokens = (int32_t) n;
        for (size_t i = 0; i < n; i++) {
            batch->token[i]     = tokens[i];
            batch->pos[i]       = pos + (llama_pos) i;
            batch->n_seq_id[i]  = 1;
            batch->seq_id[i][0] = 0;
            batch->logits[i]    = all || i + 1 == n;
        }
        const int result = llama_decode(ctx.get(), *batch);
        if (is_unwanted()) {
            throw stopped();
        }
        if (result != 0) {
            throw unable{"its tokens could not be computed again"};
        }
        const auto n_vocab = (size_t) llama_vocab_n_tokens(llama_model_get_vocab(llama_get_model(ctx.get())));
        for (size_t i = 0; i < n && all; i++) {
            found.push_back(log_probabilities(llama_get_logits_ith(ctx.get(), (int32_t) i), n_vocab));
        }
    }
};

struct measured {
    bool   fits  = false; // it could be put back
    double noise = 0; // between two ways to compute it
    double whole = 0; // what it changes to have no state
    double apart = 0; // of what was stored
};

// Whether only one thread may compute with the model: the RPC backend has, for all contexts of the process together, one graph
// of each device that it computes again without sending it, and no lock.
bool is_for_one_thread(const llama_model & model) {
    return std::any_of(model.devices.begin(), model.devices.end(), [](const llama_device & each) {
        return std::string(ggml_backend_reg_name(ggml_backend_dev_backend_reg(each.dev))) == "RPC";
    });
}

// How far a prompt can be computed again: images and sound have tokens below zero.
size_t count_text(const memory_tokens & tokens) {
    return (size_t) (std::find_if(tokens.begin(), tokens.end(), [](int32_t token) { return token < 0; }) -
                     tokens.begin());
}

// Only the first beginning is computed in two ways: it takes long.
measured measure(model_memory & memory, trial & in, const memory_match & match, const memory_tokens & tokens,
                 bool is_first) {
    const auto next = [&] { return in.compute(tokens.data(), std::min(N_NEXT, tokens.size()), N_NEXT, true); };
    const auto anew = [&](int batch_size) {
        in.clear();
        in.compute(tokens.data(), match.n_tokens, batch_size, false);
        return next();
    };
    const rows large = anew(LARGE_BATCH), small = is_first ? anew(SMALL_BATCH) : large;
    in.clear();
    const rows without = next();
    in.clear();
    sequence_record record;
    if (!sequence_state(memory, in.get(), 0, record).restore(match, (llama_pos) match.n_tokens - 1, false)) {
        return {};
    }
    return {true, distance(large, small), distance(large, without), distance(large, next())};
}

std::string number(double value) {
    char text[32];
    std::snprintf(text, sizeof(text), "%.2g", value);
    return text;
}

proof judge(const std::vector<measured> & all) {
    measured worst;
    for (const measured & each : all) {
        if (!each.fits) {
            return {proof_verdict::differs, "it does not fit this model's context"};
        }
        worst.noise = std::max(worst.noise, each.noise);
        worst.whole = std::max(worst.whole, each.whole);
        worst.apart = std::max(worst.apart, each.apart);
    }
    if (all.empty()) {
        return {proof_verdict::unknown, "it could not be read"};
    }
    const bool agrees = worst.apart <= std::max(TIMES_OF_NOISE * worst.noise, LEAST_ALLOWED * worst.whole);
    return {agrees ? proof_verdict::agrees : proof_verdict::differs,
            "log-probabilities of likely tokens differ by " + number(worst.apart) +
                ", where another split of batches makes " + number(worst.noise) + ", and having no state " +
                number(worst.whole)};
}

proof try_state(model_memory & memory, const proof_context & context, const std::string & root,
                const std::vector<memory_tokens> & beginnings, const std::function<bool()> & is_unwanted) {
    ::setpriority(PRIO_PROCESS, 0, 10); // Linux: of this thread, and of those that it makes
    const auto            layout = memory.layout();
    std::optional<trial>  in;
    std::vector<measured> all;
    try {
        const auto longest = std::max_element(beginnings.begin(), beginnings.end(),
                                              [](const auto & a, const auto & b) { return a.size() < b.size(); });
        in.emplace(context, longest->size() + N_NEXT + 1, layout.needs_checkpoint(), is_unwanted);
        for (const memory_tokens & tokens : beginnings) {
            const auto match = memory.store.find(root, tokens.data(), count_text(tokens), layout.needs_checkpoint());
            if (is_unwanted()) {
                throw stopped();
            }
            if (match.n_tokens > 0) {
                all.push_back(measure(memory, *in, match, tokens, all.empty()));
            }
        }
        return judge(all);
    } catch (const stopped &) {
        return {proof_verdict::unknown, "the server ended or slept before"};
    } catch (const unable & error) {
        return {proof_verdict::unknown, error.why};
    } catch (const std::bad_alloc &) {
        return {proof_verdict::unknown, "there was no memory to try it"};
    }
}

} // namespace

root_prover make_prover(model_memory & memory, const proof_context & context) {
    const auto  layout = memory.layout();
    root_prover prover;
    prover.need_checkpoint = layout.needs_checkpoint();
    prover.max_tokens      = prover.need_checkpoint ? MAX_TOKENS : memory.store.options().block_tokens;
    prover.is_alone        = is_for_one_thread(*context.model);
    prover.prove           = [&memory, context](const std::string & root, const std::vector<memory_tokens> & beginnings,
                                                const std::function<bool()> & is_unwanted) {
        return memory.layout().parts == state_class::whole_only
                   ? proof{proof_verdict::unknown, "state of this model can only be put back as a whole"}
                   : try_state(memory, context, root, beginnings, is_unwanted);
    };
    return prover;
}

} // namespace atlas
