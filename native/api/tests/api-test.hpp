// What the cases of the library share: a model, servers, and what they ask.
#pragma once

#include "atlas-memory-policy.hpp"
#include "atlas-server.hpp"
#include "cases.hpp"

#include <llama.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace api {

using atlas::json;
using model = std::unique_ptr<llama_model, void (*)(llama_model *)>;

// Whether this build has Python; and the code of what Python answers where it has, and the server where it has not.
#ifdef API_TESTS_HAVE_PYTHON
constexpr bool HAS_PYTHON = true;
#else
constexpr bool HAS_PYTHON = false;
#endif
constexpr int WITH_PYTHON = HAS_PYTHON ? 200 : 503;

// A case that is about what Python answers alone: there is none in a build with -DATLAS_PYTHON=OFF. What is answered there instead,
// tests/without_python.py asks.
#ifdef API_TESTS_HAVE_PYTHON
#define CASE_OF_PYTHON(name) CASE(name)
#else
#define CASE_OF_PYTHON(name) [[maybe_unused]] static void name([[maybe_unused]] const std::string & dir)
#endif

// That of ATLAS_TEST_MODEL.
std::string model_path();
model       load_model();

// A server that says nothing but errors, and keeps state of 16 tokens and more in `memory`; nothing where it is empty.
atlas::AtlasServerConfig config_of(const std::string & memory, int n_pool = 4);

// A model that is in use; what starts it lets it write without end, and be read by 16 at once.
struct server {
    explicit server(const atlas::AtlasServerConfig & config, const std::string & model_path = "",
                    std::shared_ptr<atlas::AtlasMemoryPolicy> policy = nullptr, int max_contexts = 0,
                    const std::vector<std::string> & further_arguments = {});

    api::model                          model;
    std::unique_ptr<atlas::AtlasServer> atlas;

    atlas::AtlasServer * operator->() const { return atlas.get(); }
    atlas::AtlasServer & operator*() const { return *atlas; }
};

// A completion that can only be that text.
json says(const std::string & text);

// One that goes on until it is ended.
json endless();

// The same with a session, which has it wait for a context.
json with_session(json request, const std::string & session);

// The text of an answer to says() or a chat.
std::string text_of(const json & answer);

// The message of an answer that is an error; "" where it is none.
std::string error_of(const json & answer);
int         code_of(const json & answer);

bool contains(const std::string & text, const std::string & part);

// GET of one of the routes.
json get(atlas::AtlasServer & on, const std::string & path);

// A stream that has begun, and holds a context until it is read to its end or destroyed.
atlas::AtlasResponse open_stream(atlas::AtlasServer & on, json request, std::function<bool()> is_gone = {});

// Runs call(i) in n threads and waits for all.
void in_threads(int n, const std::function<void(int)> & call);

// What the call throws; nothing where it throws nothing, or something else.
template <typename exception, typename F> std::string thrown_by(F call) {
    try {
        call();
    } catch (const exception & error) {
        return error.what();
    }
    return "";
}

} // namespace api
