#include "arguments.hpp"

#include "arg.h"
#include "llama.h"
#include "upstream-log.hpp"

#include <algorithm>
#include <iterator>
#include <stdexcept>
#include <string_view>

namespace atlas {

namespace {

// What upstream answers on standard output, and ends the process.
constexpr std::string_view FOR_COMMAND_LINES[] = {
    "-h", "--help", "--usage", "--version", "--completion-bash", "-cl", "--cache-list", "--list-devices",
};

void refuse_what_ends(std::string argument) {
    if (argument.compare(0, 2, "--") == 0) {
        std::replace(argument.begin(), argument.end(), '_', '-'); // as upstream does
    }
    if (std::count(std::begin(FOR_COMMAND_LINES), std::end(FOR_COMMAND_LINES), argument) > 0) {
        throw std::invalid_argument("the argument \"" + argument + "\" is for a command line");
    }
}

// Whether there is more to load than the model. Where that fails after a sleep, upstream ends the process.
bool loads_more(const common_params & params) {
    const auto & kinds = params.speculative.types;
    return params.speculative.has_dft() || !params.mmproj.path.empty() ||
           std::count(kinds.begin(), kinds.end(), COMMON_SPECULATIVE_TYPE_DRAFT_MTP) > 0;
}

// n_parallel is negative where the arguments do not say how many sequences there are.
common_params parse(llama_model * model, const AtlasServerConfig & config, const AtlasModelOptions & options) {
    const auto & arguments = options.arguments;
    std::for_each(arguments.begin(), arguments.end(), refuse_what_ends);
    std::vector<std::string> all = {"atlas"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    std::vector<char *> pointers;
    for (auto & argument : all) {
        pointers.push_back(argument.data());
    }
    common_params params;
    params.model_borrowed = model; // so that it throws
    params.verbosity      = upstream_verbosity(config); // where no argument says
    try {
        common_params_parse((int) pointers.size(), pointers.data(), params, LLAMA_EXAMPLE_SERVER);
    } catch (const std::invalid_argument &) {
        throw;
    } catch (const std::exception & error) {
        throw std::invalid_argument(error.what());
    }
    if (params.sleep_idle_seconds >= 0 && loads_more(params)) {
        throw std::invalid_argument(
            "the argument \"--sleep-idle-seconds\" goes neither with a draft model nor with a projector");
    }
    params.model.path = options.model_path;
    params.fit_params = false; // what is loaded does not change any more
    params.warmup     = false;
    if (params.model_alias.empty()) {
        char name[256] = "";
        llama_model_meta_val_str(model, "general.name", name, sizeof(name));
        params.model_alias.insert(!options.model_path.empty() ? params.model.get_name() : *name != 0 ? name : "model");
    }
    return params;
}

} // namespace

engine_options engine_options_of(llama_model * model, const AtlasServerConfig & config,
                                 const AtlasModelOptions & options) {
    auto       params     = parse(model, config, options);
    const int  n_max      = options.max_contexts;
    const int  n_possible = (int) llama_max_parallel_sequences();
    const auto wanted = config.context_pool_size > 0 ? config.context_pool_size : config.max_concurrent_atlas_requests;
    const int  n_pool = (int) std::min<int64_t>(wanted, n_possible);
    if (n_max != 0 && params.n_parallel >= 0) {
        throw std::invalid_argument(
            "max_contexts: -np among the arguments, or LLAMA_ARG_N_PARALLEL, says already how many "
            "sequences there are");
    }
    if (n_max != 0 && (n_max < n_pool || n_max > n_possible)) {
        throw std::invalid_argument("max_contexts: " + std::to_string(n_max) + " is not from " +
                                    std::to_string(n_pool) + ", the pool's first size, to " +
                                    std::to_string(n_possible));
    }
    if (params.n_parallel >= 0) {
        return {params, params.n_parallel};
    }
    params.n_parallel = std::max(n_pool, n_max);
    params.kv_unified = true;
    return {params, n_pool};
}

} // namespace atlas
