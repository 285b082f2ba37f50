// Any text as an `atlas` object: valid options, or a 400 that names the field and can be sent as an answer.
#include "atlas-error.hpp"
#include "atlas-request.hpp"

#include <nlohmann/json.hpp>

#include <cstdlib>

static void require(bool holds) {
    if (!holds) {
        std::abort();
    }
}

static void check(const atlas::request_options & options) {
    require(!options.session_id || atlas::is_valid_id(*options.session_id));
    require(options.memory_layers.value_or(1) >= 1 && options.memory_layers.value_or(1) <= 10);
    require(options.batch_size.value_or(1) >= 1 && options.batch_size.value_or(1) <= 32);
}

static void check(const atlas::error & error) {
    const std::string message = error.what();
    require(error.code == 400 && message.rfind("Validation error in field 'atlas", 0) == 0);
    const auto body = nlohmann::json::parse(atlas::error_body(error.code, message));
    require(body.at("error").at("message") == message);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t * data, size_t n_bytes) {
    const std::string text(reinterpret_cast<const char *>(data), n_bytes);
    try {
        check(atlas::parse_request_options(text));
    } catch (const atlas::error & error) {
        check(error);
    } catch (const nlohmann::json::exception &) { // the text of a value that was parsed already is always JSON
        require(!nlohmann::json::accept(text));
    }
    return 0;
}
