// Loading a model with llama.cpp, as the examples do.
#pragma once

#include <llama.h>

#include <memory>
#include <stdexcept>

struct model_deleter {
    void operator()(llama_model * model) const { llama_model_free(model); }
};

inline std::unique_ptr<llama_model, model_deleter> load_model(const char * path) {
    llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    llama_backend_init();
    std::unique_ptr<llama_model, model_deleter> model(llama_model_load_from_file(path, llama_model_default_params()));
    if (!model) {
        throw std::runtime_error(std::string("cannot load ") + path);
    }
    return model;
}
